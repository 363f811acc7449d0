// SPDX-License-Identifier: Apache-2.0
// string_cases.h - made by tools/golden/string_nodes.py from ComfyUI 0.3.64: a node and what it
// gives: 's' a text, 'i' a number, 'b' a truth value, 'e' an error.
static const string_case string_cases[] = {
    {"{'class_type':'StringConcatenate','inputs':{'string_a':'a\134nb','string_b':'\134u00fc','"
     "delimiter':', '}}",
     's', "a\012b, \303\274", 0},
    {"{'class_type':'StringConcatenate','inputs':{'string_a':'','string_b':'','delimiter':''}}",
     's', "", 0},
    {"{'class_type':'StringLength','inputs':{'string':'na\134u00efve \134u65e5\134u672c\134u8a9e "
     "\134ud83c\134udf88e\134u0301'}}",
     'i', "", 13},
    {"{'class_type':'StringLength','inputs':{'string':''}}", 'i', "", 0},
    {"{'class_type':'CaseConverter','inputs':{'string':'\134u0391\134u03a3 "
     "\134u1f48\134u0394\134u03a5\134u03a3\134u03a3\134u0395\134u038e\134u03a3. "
     "\134u03a3\134u0391\134u03a3\134u0027 stra\134u00dfe \134u01c6ungla \134u0149 \134ufb01n "
     "\134u0130I \134ufb00 they\134u0027re \134u13e3\134uabb3 \134u1e9e "
     "\134u0391\134u00ad\134u03a3 2nd x1y','mode':'UPPERCASE'}}",
     's',
     "\316\221\316\243 \341\275\210\316\224\316\245\316\243\316\243\316\225\316\216\316\243. "
     "\316\243\316\221\316\243' STRASSE \307\204UNGLA \312\274N FIN \304\260I FF THEY'RE "
     "\341\217\243\341\217\243 \341\272\236 \316\221\302\255\316\243 2ND X1Y",
     0},
    {"{'class_type':'CaseConverter','inputs':{'string':'','mode':'UPPERCASE'}}", 's', "", 0},
    {"{'class_type':'CaseConverter','inputs':{'string':'"
     "\134u1f48\134u0394\134u03a5\134u03a3\134u03a3\134u0395\134u038e\134u03a3','mode':'UPPERCASE'}"
     "}",
     's', "\341\275\210\316\224\316\245\316\243\316\243\316\225\316\216\316\243", 0},
    {"{'class_type':'CaseConverter','inputs':{'string':'\134u01c6 \134u00df "
     "\134u0149','mode':'UPPERCASE'}}",
     's', "\307\204 SS \312\274N", 0},
    {"{'class_type':'CaseConverter','inputs':{'string':'o\134u0027neill\134u0027s 3rd-world  "
     "\134u00c9T\134u00c9','mode':'UPPERCASE'}}",
     's', "O'NEILL'S 3RD-WORLD  \303\211T\303\211", 0},
    {"{'class_type':'CaseConverter','inputs':{'string':'\134u0391\134u03a3 "
     "\134u1f48\134u0394\134u03a5\134u03a3\134u03a3\134u0395\134u038e\134u03a3. "
     "\134u03a3\134u0391\134u03a3\134u0027 stra\134u00dfe \134u01c6ungla \134u0149 \134ufb01n "
     "\134u0130I \134ufb00 they\134u0027re \134u13e3\134uabb3 \134u1e9e "
     "\134u0391\134u00ad\134u03a3 2nd x1y','mode':'lowercase'}}",
     's',
     "\316\261\317\202 \341\275\200\316\264\317\205\317\203\317\203\316\265\317\215\317\202. "
     "\317\203\316\261\317\202' stra\303\237e \307\206ungla \305\211 \357\254\201n i\314\207i "
     "\357\254\200 they're \352\256\263\352\256\263 \303\237 \316\261\302\255\317\202 2nd x1y",
     0},
    {"{'class_type':'CaseConverter','inputs':{'string':'','mode':'lowercase'}}", 's', "", 0},
    {"{'class_type':'CaseConverter','inputs':{'string':'"
     "\134u1f48\134u0394\134u03a5\134u03a3\134u03a3\134u0395\134u038e\134u03a3','mode':'lowercase'}"
     "}",
     's', "\341\275\200\316\264\317\205\317\203\317\203\316\265\317\215\317\202", 0},
    {"{'class_type':'CaseConverter','inputs':{'string':'\134u01c6 \134u00df "
     "\134u0149','mode':'lowercase'}}",
     's', "\307\206 \303\237 \305\211", 0},
    {"{'class_type':'CaseConverter','inputs':{'string':'o\134u0027neill\134u0027s 3rd-world  "
     "\134u00c9T\134u00c9','mode':'lowercase'}}",
     's', "o'neill's 3rd-world  \303\251t\303\251", 0},
    {"{'class_type':'CaseConverter','inputs':{'string':'\134u0391\134u03a3 "
     "\134u1f48\134u0394\134u03a5\134u03a3\134u03a3\134u0395\134u038e\134u03a3. "
     "\134u03a3\134u0391\134u03a3\134u0027 stra\134u00dfe \134u01c6ungla \134u0149 \134ufb01n "
     "\134u0130I \134ufb00 they\134u0027re \134u13e3\134uabb3 \134u1e9e "
     "\134u0391\134u00ad\134u03a3 2nd x1y','mode':'Capitalize'}}",
     's',
     "\316\221\317\202 \341\275\200\316\264\317\205\317\203\317\203\316\265\317\215\317\202. "
     "\317\203\316\261\317\202' stra\303\237e \307\206ungla \305\211 \357\254\201n i\314\207i "
     "\357\254\200 they're \352\256\263\352\256\263 \303\237 \316\261\302\255\317\202 2nd x1y",
     0},
    {"{'class_type':'CaseConverter','inputs':{'string':'','mode':'Capitalize'}}", 's', "", 0},
    {"{'class_type':'CaseConverter','inputs':{'string':'"
     "\134u1f48\134u0394\134u03a5\134u03a3\134u03a3\134u0395\134u038e\134u03a3','mode':'Capitalize'"
     "}}",
     's', "\341\275\210\316\264\317\205\317\203\317\203\316\265\317\215\317\202", 0},
    {"{'class_type':'CaseConverter','inputs':{'string':'\134u01c6 \134u00df "
     "\134u0149','mode':'Capitalize'}}",
     's', "\307\205 \303\237 \305\211", 0},
    {"{'class_type':'CaseConverter','inputs':{'string':'o\134u0027neill\134u0027s 3rd-world  "
     "\134u00c9T\134u00c9','mode':'Capitalize'}}",
     's', "O'neill's 3rd-world  \303\251t\303\251", 0},
    {"{'class_type':'CaseConverter','inputs':{'string':'\134u0391\134u03a3 "
     "\134u1f48\134u0394\134u03a5\134u03a3\134u03a3\134u0395\134u038e\134u03a3. "
     "\134u03a3\134u0391\134u03a3\134u0027 stra\134u00dfe \134u01c6ungla \134u0149 \134ufb01n "
     "\134u0130I \134ufb00 they\134u0027re \134u13e3\134uabb3 \134u1e9e "
     "\134u0391\134u00ad\134u03a3 2nd x1y','mode':'Title Case'}}",
     's',
     "\316\221\317\202 \341\275\210\316\264\317\205\317\203\317\203\316\265\317\215\317\202. "
     "\316\243\316\261\317\202' Stra\303\237e \307\205ungla \312\274N Fin \304\260i Ff They'Re "
     "\341\217\243\352\256\263 \341\272\236 \316\221\302\255\316\243 2Nd X1Y",
     0},
    {"{'class_type':'CaseConverter','inputs':{'string':'','mode':'Title Case'}}", 's', "", 0},
    {"{'class_type':'CaseConverter','inputs':{'string':'"
     "\134u1f48\134u0394\134u03a5\134u03a3\134u03a3\134u0395\134u038e\134u03a3','mode':'Title "
     "Case'}}",
     's', "\341\275\210\316\264\317\205\317\203\317\203\316\265\317\215\317\202", 0},
    {"{'class_type':'CaseConverter','inputs':{'string':'\134u01c6 \134u00df "
     "\134u0149','mode':'Title Case'}}",
     's', "\307\205 Ss \312\274N", 0},
    {"{'class_type':'CaseConverter','inputs':{'string':'o\134u0027neill\134u0027s 3rd-world  "
     "\134u00c9T\134u00c9','mode':'Title Case'}}",
     's', "O'Neill'S 3Rd-World  \303\211t\303\251", 0},
    {"{'class_type':'StringSubstring','inputs':{'string':'\134u00e4b\134ud83c\134udf88d\134u65e5f',"
     "'start':0,'end':3}}",
     's', "\303\244b\360\237\216\210", 0},
    {"{'class_type':'StringSubstring','inputs':{'string':'\134u00e4b\134ud83c\134udf88d\134u65e5f',"
     "'start':2,'end':100}}",
     's', "\360\237\216\210d\346\227\245f", 0},
    {"{'class_type':'StringSubstring','inputs':{'string':'\134u00e4b\134ud83c\134udf88d\134u65e5f',"
     "'start':-3,'end':-1}}",
     's', "d\346\227\245", 0},
    {"{'class_type':'StringSubstring','inputs':{'string':'\134u00e4b\134ud83c\134udf88d\134u65e5f',"
     "'start':-100,'end':2}}",
     's', "\303\244b", 0},
    {"{'class_type':'StringSubstring','inputs':{'string':'\134u00e4b\134ud83c\134udf88d\134u65e5f',"
     "'start':3,'end':1}}",
     's', "", 0},
    {"{'class_type':'StringSubstring','inputs':{'string':'\134u00e4b\134ud83c\134udf88d\134u65e5f',"
     "'start':1,'end':-1}}",
     's', "b\360\237\216\210d\346\227\245", 0},
    {"{'class_type':'StringSubstring','inputs':{'string':'\134u00e4b\134ud83c\134udf88d\134u65e5f',"
     "'start':5,'end':5}}",
     's', "", 0},
    {"{'class_type':'StringSubstring','inputs':{'string':'\134u00e4b\134ud83c\134udf88d\134u65e5f',"
     "'start':-1,'end':9}}",
     's', "f", 0},
    {"{'class_type':'StringTrim','inputs':{'string':' \134t\134u3000a "
     "b\134u2003\134u001f\134n','mode':'Both'}}",
     's', "a b", 0},
    {"{'class_type':'StringTrim','inputs':{'string':'\134u200bx ','mode':'Both'}}", 's',
     "\342\200\213x", 0},
    {"{'class_type':'StringTrim','inputs':{'string':' \134n','mode':'Both'}}", 's', "", 0},
    {"{'class_type':'StringTrim','inputs':{'string':'','mode':'Both'}}", 's', "", 0},
    {"{'class_type':'StringTrim','inputs':{'string':' \134t\134u3000a "
     "b\134u2003\134u001f\134n','mode':'Left'}}",
     's', "a b\342\200\203\037\012", 0},
    {"{'class_type':'StringTrim','inputs':{'string':'\134u200bx ','mode':'Left'}}", 's',
     "\342\200\213x ", 0},
    {"{'class_type':'StringTrim','inputs':{'string':' \134n','mode':'Left'}}", 's', "", 0},
    {"{'class_type':'StringTrim','inputs':{'string':'','mode':'Left'}}", 's', "", 0},
    {"{'class_type':'StringTrim','inputs':{'string':' \134t\134u3000a "
     "b\134u2003\134u001f\134n','mode':'Right'}}",
     's', " \011\343\200\200a b", 0},
    {"{'class_type':'StringTrim','inputs':{'string':'\134u200bx ','mode':'Right'}}", 's',
     "\342\200\213x", 0},
    {"{'class_type':'StringTrim','inputs':{'string':' \134n','mode':'Right'}}", 's', "", 0},
    {"{'class_type':'StringTrim','inputs':{'string':'','mode':'Right'}}", 's', "", 0},
    {"{'class_type':'StringReplace','inputs':{'string':'aaa','find':'aa','replace':'b'}}", 's',
     "ba", 0},
    {"{'class_type':'StringReplace','inputs':{'string':'\134u00e4\134u00f6\134u00fc','find':'','"
     "replace':'-'}}",
     's', "-\303\244-\303\266-\303\274-", 0},
    {"{'class_type':'StringReplace','inputs':{'string':'','find':'','replace':'x'}}", 's', "x", 0},
    {"{'class_type':'StringReplace','inputs':{'string':'abab','find':'ab','replace':''}}", 's', "",
     0},
    {"{'class_type':'StringReplace','inputs':{'string':'x','find':'y','replace':'z'}}", 's', "x",
     0},
    {"{'class_type':'StringContains','inputs':{'string':'Hello "
     "World','substring':'world','case_sensitive':true}}",
     'b', "", 0},
    {"{'class_type':'StringCompare','inputs':{'string_a':'Hello "
     "World','string_b':'world','mode':'Starts With','case_sensitive':true}}",
     'b', "", 0},
    {"{'class_type':'StringCompare','inputs':{'string_a':'Hello "
     "World','string_b':'world','mode':'Ends With','case_sensitive':true}}",
     'b', "", 0},
    {"{'class_type':'StringCompare','inputs':{'string_a':'Hello "
     "World','string_b':'world','mode':'Equal','case_sensitive':true}}",
     'b', "", 0},
    {"{'class_type':'StringContains','inputs':{'string':'Hello "
     "World','substring':'world','case_sensitive':false}}",
     'b', "", 1},
    {"{'class_type':'StringCompare','inputs':{'string_a':'Hello "
     "World','string_b':'world','mode':'Starts With','case_sensitive':false}}",
     'b', "", 0},
    {"{'class_type':'StringCompare','inputs':{'string_a':'Hello "
     "World','string_b':'world','mode':'Ends With','case_sensitive':false}}",
     'b', "", 1},
    {"{'class_type':'StringCompare','inputs':{'string_a':'Hello "
     "World','string_b':'world','mode':'Equal','case_sensitive':false}}",
     'b', "", 0},
    {"{'class_type':'StringContains','inputs':{'string':'\134u03a3\134u0391\134u03a3','substring':'"
     "\134u03c3\134u03b1\134u03c2','case_sensitive':true}}",
     'b', "", 0},
    {"{'class_type':'StringCompare','inputs':{'string_a':'\134u03a3\134u0391\134u03a3','string_b':'"
     "\134u03c3\134u03b1\134u03c2','mode':'Starts With','case_sensitive':true}}",
     'b', "", 0},
    {"{'class_type':'StringCompare','inputs':{'string_a':'\134u03a3\134u0391\134u03a3','string_b':'"
     "\134u03c3\134u03b1\134u03c2','mode':'Ends With','case_sensitive':true}}",
     'b', "", 0},
    {"{'class_type':'StringCompare','inputs':{'string_a':'\134u03a3\134u0391\134u03a3','string_b':'"
     "\134u03c3\134u03b1\134u03c2','mode':'Equal','case_sensitive':true}}",
     'b', "", 0},
    {"{'class_type':'StringContains','inputs':{'string':'\134u03a3\134u0391\134u03a3','substring':'"
     "\134u03c3\134u03b1\134u03c2','case_sensitive':false}}",
     'b', "", 1},
    {"{'class_type':'StringCompare','inputs':{'string_a':'\134u03a3\134u0391\134u03a3','string_b':'"
     "\134u03c3\134u03b1\134u03c2','mode':'Starts With','case_sensitive':false}}",
     'b', "", 1},
    {"{'class_type':'StringCompare','inputs':{'string_a':'\134u03a3\134u0391\134u03a3','string_b':'"
     "\134u03c3\134u03b1\134u03c2','mode':'Ends With','case_sensitive':false}}",
     'b', "", 1},
    {"{'class_type':'StringCompare','inputs':{'string_a':'\134u03a3\134u0391\134u03a3','string_b':'"
     "\134u03c3\134u03b1\134u03c2','mode':'Equal','case_sensitive':false}}",
     'b', "", 1},
    {"{'class_type':'StringContains','inputs':{'string':'abc','substring':'','case_sensitive':true}"
     "}",
     'b', "", 1},
    {"{'class_type':'StringCompare','inputs':{'string_a':'abc','string_b':'','mode':'Starts "
     "With','case_sensitive':true}}",
     'b', "", 1},
    {"{'class_type':'StringCompare','inputs':{'string_a':'abc','string_b':'','mode':'Ends "
     "With','case_sensitive':true}}",
     'b', "", 1},
    {"{'class_type':'StringCompare','inputs':{'string_a':'abc','string_b':'','mode':'Equal','case_"
     "sensitive':true}}",
     'b', "", 0},
    {"{'class_type':'StringContains','inputs':{'string':'abc','substring':'','case_sensitive':"
     "false}}",
     'b', "", 1},
    {"{'class_type':'StringCompare','inputs':{'string_a':'abc','string_b':'','mode':'Starts "
     "With','case_sensitive':false}}",
     'b', "", 1},
    {"{'class_type':'StringCompare','inputs':{'string_a':'abc','string_b':'','mode':'Ends "
     "With','case_sensitive':false}}",
     'b', "", 1},
    {"{'class_type':'StringCompare','inputs':{'string_a':'abc','string_b':'','mode':'Equal','case_"
     "sensitive':false}}",
     'b', "", 0},
    {"{'class_type':'StringContains','inputs':{'string':'','substring':'a','case_sensitive':true}}",
     'b', "", 0},
    {"{'class_type':'StringCompare','inputs':{'string_a':'','string_b':'a','mode':'Starts "
     "With','case_sensitive':true}}",
     'b', "", 0},
    {"{'class_type':'StringCompare','inputs':{'string_a':'','string_b':'a','mode':'Ends "
     "With','case_sensitive':true}}",
     'b', "", 0},
    {"{'class_type':'StringCompare','inputs':{'string_a':'','string_b':'a','mode':'Equal','case_"
     "sensitive':true}}",
     'b', "", 0},
    {"{'class_type':'StringContains','inputs':{'string':'','substring':'a','case_sensitive':false}"
     "}",
     'b', "", 0},
    {"{'class_type':'StringCompare','inputs':{'string_a':'','string_b':'a','mode':'Starts "
     "With','case_sensitive':false}}",
     'b', "", 0},
    {"{'class_type':'StringCompare','inputs':{'string_a':'','string_b':'a','mode':'Ends "
     "With','case_sensitive':false}}",
     'b', "", 0},
    {"{'class_type':'StringCompare','inputs':{'string_a':'','string_b':'a','mode':'Equal','case_"
     "sensitive':false}}",
     'b', "", 0},
    {"{'class_type':'StringContains','inputs':{'string':'STRASSE','substring':'\134u00df','case_"
     "sensitive':true}}",
     'b', "", 0},
    {"{'class_type':'StringCompare','inputs':{'string_a':'STRASSE','string_b':'\134u00df','mode':'"
     "Starts With','case_sensitive':true}}",
     'b', "", 0},
    {"{'class_type':'StringCompare','inputs':{'string_a':'STRASSE','string_b':'\134u00df','mode':'"
     "Ends With','case_sensitive':true}}",
     'b', "", 0},
    {"{'class_type':'StringCompare','inputs':{'string_a':'STRASSE','string_b':'\134u00df','mode':'"
     "Equal','case_sensitive':true}}",
     'b', "", 0},
    {"{'class_type':'StringContains','inputs':{'string':'STRASSE','substring':'\134u00df','case_"
     "sensitive':false}}",
     'b', "", 0},
    {"{'class_type':'StringCompare','inputs':{'string_a':'STRASSE','string_b':'\134u00df','mode':'"
     "Starts With','case_sensitive':false}}",
     'b', "", 0},
    {"{'class_type':'StringCompare','inputs':{'string_a':'STRASSE','string_b':'\134u00df','mode':'"
     "Ends With','case_sensitive':false}}",
     'b', "", 0},
    {"{'class_type':'StringCompare','inputs':{'string_a':'STRASSE','string_b':'\134u00df','mode':'"
     "Equal','case_sensitive':false}}",
     'b', "", 0},
    {"{'class_type':'RegexMatch','inputs':{'string':'abbc','regex_pattern':'B+','case_insensitive':"
     "true,'multiline':false,'dotall':false}}",
     'b', "", 1},
    {"{'class_type':'RegexMatch','inputs':{'string':'abbc','regex_pattern':'B+','case_insensitive':"
     "false,'multiline':false,'dotall':false}}",
     'b', "", 0},
    {"{'class_type':'RegexMatch','inputs':{'string':'a\134nb','regex_pattern':'^b','case_"
     "insensitive':true,'multiline':false,'dotall':false}}",
     'b', "", 0},
    {"{'class_type':'RegexMatch','inputs':{'string':'a\134nb','regex_pattern':'^b','case_"
     "insensitive':true,'multiline':true,'dotall':false}}",
     'b', "", 1},
    {"{'class_type':'RegexMatch','inputs':{'string':'a\134nb','regex_pattern':'a.b','case_"
     "insensitive':true,'multiline':false,'dotall':false}}",
     'b', "", 0},
    {"{'class_type':'RegexMatch','inputs':{'string':'a\134nb','regex_pattern':'a.b','case_"
     "insensitive':true,'multiline':false,'dotall':true}}",
     'b', "", 1},
    {"{'class_type':'RegexMatch','inputs':{'string':'a\134n','regex_pattern':'a$','case_"
     "insensitive':true,'multiline':false,'dotall':false}}",
     'b', "", 1},
    {"{'class_type':'RegexMatch','inputs':{'string':'a\134n','regex_pattern':'a\134\134Z','case_"
     "insensitive':true,'multiline':false,'dotall':false}}",
     'b', "", 0},
    {"{'class_type':'RegexMatch','inputs':{'string':'a "
     "K','regex_pattern':'\134\134bk','case_insensitive':true,'multiline':false,'dotall':false}}",
     'b', "", 1},
    {"{'class_type':'RegexMatch','inputs':{'string':'x','regex_pattern':'(','case_insensitive':"
     "true,'multiline':false,'dotall':false}}",
     'b', "", 0},
    {"{'class_type':'RegexMatch','inputs':{'string':'a','regex_pattern':'a**','case_insensitive':"
     "true,'multiline':false,'dotall':false}}",
     'b', "", 0},
    {"{'class_type':'RegexMatch','inputs':{'string':'h','regex_pattern':'\134\134h','case_"
     "insensitive':true,'multiline':false,'dotall':false}}",
     'b', "", 0},
    {"{'class_type':'RegexMatch','inputs':{'string':'b','regex_pattern':'[[:alpha:]]','case_"
     "insensitive':true,'multiline':false,'dotall':false}}",
     'b', "", 0},
    {"{'class_type':'RegexMatch','inputs':{'string':'a]','regex_pattern':'[[:alpha:]]','case_"
     "insensitive':true,'multiline':false,'dotall':false}}",
     'b', "", 1},
    {"{'class_type':'RegexMatch','inputs':{'string':'\134u001c','regex_pattern':'\134\134s','case_"
     "insensitive':true,'multiline':false,'dotall':false}}",
     'b', "", 1},
    {"{'class_type':'RegexMatch','inputs':{'string':'\134u180e','regex_pattern':'\134\134s','case_"
     "insensitive':true,'multiline':false,'dotall':false}}",
     'b', "", 0},
    {"{'class_type':'RegexMatch','inputs':{'string':'\134u00e9','regex_pattern':'\134\134w','case_"
     "insensitive':true,'multiline':false,'dotall':false}}",
     'b', "", 1},
    {"{'class_type':'RegexMatch','inputs':{'string':'\134u0301','regex_pattern':'\134\134w','case_"
     "insensitive':true,'multiline':false,'dotall':false}}",
     'b', "", 0},
    {"{'class_type':'RegexMatch','inputs':{'string':'\134u0663','regex_pattern':'\134\134d','case_"
     "insensitive':true,'multiline':false,'dotall':false}}",
     'b', "", 1},
    {"{'class_type':'RegexMatch','inputs':{'string':'y','regex_pattern':'x{,2}y','case_insensitive'"
     ":true,'multiline':false,'dotall':false}}",
     'b', "", 1},
    {"{'class_type':'RegexMatch','inputs':{'string':'xxxy','regex_pattern':'x{,}y','case_"
     "insensitive':true,'multiline':false,'dotall':false}}",
     'b', "", 1},
    {"{'class_type':'RegexMatch','inputs':{'string':'x{2','regex_pattern':'x{2','case_insensitive':"
     "true,'multiline':false,'dotall':false}}",
     'b', "", 1},
    {"{'class_type':'RegexMatch','inputs':{'string':'{a}','regex_pattern':'{a}','case_insensitive':"
     "true,'multiline':false,'dotall':false}}",
     'b', "", 1},
    {"{'class_type':'RegexMatch','inputs':{'string':'a','regex_pattern':'(\077i)A','case_"
     "insensitive':false,'multiline':false,'dotall':false}}",
     'b', "", 1},
    {"{'class_type':'RegexMatch','inputs':{'string':'ab','regex_pattern':'a(\077i)b','case_"
     "insensitive':true,'multiline':false,'dotall':false}}",
     'b', "", 0},
    {"{'class_type':'RegexMatch','inputs':{'string':'A\134n','regex_pattern':'(\077s-i:A.)','case_"
     "insensitive':true,'multiline':false,'dotall':false}}",
     'b', "", 1},
    {"{'class_type':'RegexMatch','inputs':{'string':'aa','regex_pattern':'(\077P<q>a)(\077P=q)','"
     "case_insensitive':true,'multiline':false,'dotall':false}}",
     'b', "", 1},
    {"{'class_type':'RegexMatch','inputs':{'string':'a','regex_pattern':'(\077<q>a)','case_"
     "insensitive':true,'multiline':false,'dotall':false}}",
     'b', "", 0},
    {"{'class_type':'RegexMatch','inputs':{'string':'ab','regex_pattern':'(a)\077(\077(1)b|c)','"
     "case_insensitive':true,'multiline':false,'dotall':false}}",
     'b', "", 1},
    {"{'class_type':'RegexMatch','inputs':{'string':'a','regex_pattern':'(\077#note)a','case_"
     "insensitive':true,'multiline':false,'dotall':false}}",
     'b', "", 1},
    {"{'class_type':'RegexMatch','inputs':{'string':'a\134u00e9A','regex_pattern':'"
     "\134\134x41\134\134u00e9\134\134101','case_insensitive':true,'multiline':false,'dotall':"
     "false}}",
     'b', "", 1},
    {"{'class_type':'RegexMatch','inputs':{'string':'8','regex_pattern':'\134\1348','case_"
     "insensitive':true,'multiline':false,'dotall':false}}",
     'b', "", 0},
    {"{'class_type':'RegexMatch','inputs':{'string':'7','regex_pattern':'[\134\134d\134\134s]','"
     "case_insensitive':true,'multiline':false,'dotall':false}}",
     'b', "", 1},
    {"{'class_type':'RegexMatch','inputs':{'string':']','regex_pattern':'[]a]','case_insensitive':"
     "true,'multiline':false,'dotall':false}}",
     'b', "", 1},
    {"{'class_type':'RegexMatch','inputs':{'string':']a','regex_pattern':'[^]a]','case_insensitive'"
     ":true,'multiline':false,'dotall':false}}",
     'b', "", 0},
    {"{'class_type':'RegexMatch','inputs':{'string':'aab','regex_pattern':'a++b','case_insensitive'"
     ":true,'multiline':false,'dotall':false}}",
     'b', "", 1},
    {"{'class_type':'RegexMatch','inputs':{'string':'aab','regex_pattern':'(\077>a+)b','case_"
     "insensitive':true,'multiline':false,'dotall':false}}",
     'b', "", 1},
    {"{'class_type':'RegexMatch','inputs':{'string':'a','regex_pattern':'(*UTF)a','case_"
     "insensitive':true,'multiline':false,'dotall':false}}",
     'b', "", 0},
    {"{'class_type':'RegexMatch','inputs':{'string':'a','regex_pattern':'(\077R)','case_"
     "insensitive':true,'multiline':false,'dotall':false}}",
     'b', "", 0},
    {"{'class_type':'RegexMatch','inputs':{'string':'K','regex_pattern':'\134\134K','case_"
     "insensitive':true,'multiline':false,'dotall':false}}",
     'b', "", 0},
    {"{'class_type':'RegexMatch','inputs':{'string':'a.b-c\134u00e9','regex_pattern':'a\134\134."
     "b\134\134-c\134\134\134u00e9','case_insensitive':true,'multiline':false,'dotall':false}}",
     'b', "", 1},
    {"{'class_type':'RegexMatch','inputs':{'string':'&','regex_pattern':'[a-z&&b]','case_"
     "insensitive':true,'multiline':false,'dotall':false}}",
     'b', "", 1},
    {"{'class_type':'RegexMatch','inputs':{'string':'a\134n','regex_pattern':'^$','case_"
     "insensitive':true,'multiline':true,'dotall':false}}",
     'b', "", 1},
    {"{'class_type':'RegexMatch','inputs':{'string':'abc','regex_pattern':'(\077=a)\134\134w{1,2}"
     "\077','case_insensitive':true,'multiline':false,'dotall':false}}",
     'b', "", 1},
    {"{'class_type':'RegexMatch','inputs':{'string':'\134u0001','regex_pattern':'\134\13401','case_"
     "insensitive':true,'multiline':false,'dotall':false}}",
     'b', "", 1},
    {"{'class_type':'RegexExtract','inputs':{'string':'a1b22','regex_pattern':'\134\134d+','mode':'"
     "First Match','case_insensitive':true,'multiline':false,'dotall':false,'group_index':1}}",
     's', "1", 0},
    {"{'class_type':'RegexExtract','inputs':{'string':'a=1, "
     "b=2','regex_pattern':'(\134\134w)=(\134\134d)','mode':'First "
     "Match','case_insensitive':true,'multiline':false,'dotall':false,'group_index':2}}",
     's', "a=1", 0},
    {"{'class_type':'RegexExtract','inputs':{'string':'ba','regex_pattern':'(a)|b','mode':'First "
     "Match','case_insensitive':true,'multiline':false,'dotall':false,'group_index':1}}",
     's', "b", 0},
    {"{'class_type':'RegexExtract','inputs':{'string':'abxd','regex_pattern':'x*','mode':'First "
     "Match','case_insensitive':true,'multiline':false,'dotall':false,'group_index':0}}",
     's', "", 0},
    {"{'class_type':'RegexExtract','inputs':{'string':'xxy','regex_pattern':'(x)(y)\077','mode':'"
     "First Match','case_insensitive':true,'multiline':false,'dotall':false,'group_index':1}}",
     's', "x", 0},
    {"{'class_type':'RegexExtract','inputs':{'string':'x','regex_pattern':'(','mode':'First "
     "Match','case_insensitive':true,'multiline':false,'dotall':false,'group_index':1}}",
     's', "", 0},
    {"{'class_type':'RegexExtract','inputs':{'string':'x','regex_pattern':'q(z)','mode':'First "
     "Match','case_insensitive':true,'multiline':false,'dotall':false,'group_index':1}}",
     's', "", 0},
    {"{'class_type':'RegexExtract','inputs':{'string':'\134u00c4\134u00e4a\134u00c4','regex_"
     "pattern':'(\134u00e4+)','mode':'First "
     "Match','case_insensitive':true,'multiline':false,'dotall':false,'group_index':1}}",
     's', "\303\204\303\244", 0},
    {"{'class_type':'RegexExtract','inputs':{'string':'ab','regex_pattern':'(a)(b)','mode':'First "
     "Match','case_insensitive':true,'multiline':false,'dotall':false,'group_index':0}}",
     's', "ab", 0},
    {"{'class_type':'RegexExtract','inputs':{'string':'a','regex_pattern':'(a)','mode':'First "
     "Match','case_insensitive':true,'multiline':false,'dotall':false,'group_index':7}}",
     's', "a", 0},
    {"{'class_type':'RegexExtract','inputs':{'string':'a1b22','regex_pattern':'\134\134d+','mode':'"
     "All Matches','case_insensitive':true,'multiline':false,'dotall':false,'group_index':1}}",
     's', "1\01222", 0},
    {"{'class_type':'RegexExtract','inputs':{'string':'a=1, "
     "b=2','regex_pattern':'(\134\134w)=(\134\134d)','mode':'All "
     "Matches','case_insensitive':true,'multiline':false,'dotall':false,'group_index':2}}",
     's', "a\012b", 0},
    {"{'class_type':'RegexExtract','inputs':{'string':'ba','regex_pattern':'(a)|b','mode':'All "
     "Matches','case_insensitive':true,'multiline':false,'dotall':false,'group_index':1}}",
     's', "\012a", 0},
    {"{'class_type':'RegexExtract','inputs':{'string':'abxd','regex_pattern':'x*','mode':'All "
     "Matches','case_insensitive':true,'multiline':false,'dotall':false,'group_index':0}}",
     's', "\012\012x\012\012", 0},
    {"{'class_type':'RegexExtract','inputs':{'string':'xxy','regex_pattern':'(x)(y)\077','mode':'"
     "All Matches','case_insensitive':true,'multiline':false,'dotall':false,'group_index':1}}",
     's', "x\012x", 0},
    {"{'class_type':'RegexExtract','inputs':{'string':'x','regex_pattern':'(','mode':'All "
     "Matches','case_insensitive':true,'multiline':false,'dotall':false,'group_index':1}}",
     's', "", 0},
    {"{'class_type':'RegexExtract','inputs':{'string':'x','regex_pattern':'q(z)','mode':'All "
     "Matches','case_insensitive':true,'multiline':false,'dotall':false,'group_index':1}}",
     's', "", 0},
    {"{'class_type':'RegexExtract','inputs':{'string':'\134u00c4\134u00e4a\134u00c4','regex_"
     "pattern':'(\134u00e4+)','mode':'All "
     "Matches','case_insensitive':true,'multiline':false,'dotall':false,'group_index':1}}",
     's', "\303\204\303\244\012\303\204", 0},
    {"{'class_type':'RegexExtract','inputs':{'string':'ab','regex_pattern':'(a)(b)','mode':'All "
     "Matches','case_insensitive':true,'multiline':false,'dotall':false,'group_index':0}}",
     's', "a", 0},
    {"{'class_type':'RegexExtract','inputs':{'string':'a','regex_pattern':'(a)','mode':'All "
     "Matches','case_insensitive':true,'multiline':false,'dotall':false,'group_index':7}}",
     's', "a", 0},
    {"{'class_type':'RegexExtract','inputs':{'string':'a1b22','regex_pattern':'\134\134d+','mode':'"
     "First Group','case_insensitive':true,'multiline':false,'dotall':false,'group_index':1}}",
     's', "", 0},
    {"{'class_type':'RegexExtract','inputs':{'string':'a=1, "
     "b=2','regex_pattern':'(\134\134w)=(\134\134d)','mode':'First "
     "Group','case_insensitive':true,'multiline':false,'dotall':false,'group_index':2}}",
     's', "1", 0},
    {"{'class_type':'RegexExtract','inputs':{'string':'ba','regex_pattern':'(a)|b','mode':'First "
     "Group','case_insensitive':true,'multiline':false,'dotall':false,'group_index':1}}",
     's', "", 0},
    {"{'class_type':'RegexExtract','inputs':{'string':'abxd','regex_pattern':'x*','mode':'First "
     "Group','case_insensitive':true,'multiline':false,'dotall':false,'group_index':0}}",
     's', "", 0},
    {"{'class_type':'RegexExtract','inputs':{'string':'xxy','regex_pattern':'(x)(y)\077','mode':'"
     "First Group','case_insensitive':true,'multiline':false,'dotall':false,'group_index':1}}",
     's', "x", 0},
    {"{'class_type':'RegexExtract','inputs':{'string':'x','regex_pattern':'(','mode':'First "
     "Group','case_insensitive':true,'multiline':false,'dotall':false,'group_index':1}}",
     's', "", 0},
    {"{'class_type':'RegexExtract','inputs':{'string':'x','regex_pattern':'q(z)','mode':'First "
     "Group','case_insensitive':true,'multiline':false,'dotall':false,'group_index':1}}",
     's', "", 0},
    {"{'class_type':'RegexExtract','inputs':{'string':'\134u00c4\134u00e4a\134u00c4','regex_"
     "pattern':'(\134u00e4+)','mode':'First "
     "Group','case_insensitive':true,'multiline':false,'dotall':false,'group_index':1}}",
     's', "\303\204\303\244", 0},
    {"{'class_type':'RegexExtract','inputs':{'string':'ab','regex_pattern':'(a)(b)','mode':'First "
     "Group','case_insensitive':true,'multiline':false,'dotall':false,'group_index':0}}",
     's', "ab", 0},
    {"{'class_type':'RegexExtract','inputs':{'string':'a','regex_pattern':'(a)','mode':'First "
     "Group','case_insensitive':true,'multiline':false,'dotall':false,'group_index':7}}",
     's', "", 0},
    {"{'class_type':'RegexExtract','inputs':{'string':'a1b22','regex_pattern':'\134\134d+','mode':'"
     "All Groups','case_insensitive':true,'multiline':false,'dotall':false,'group_index':1}}",
     's', "", 0},
    {"{'class_type':'RegexExtract','inputs':{'string':'a=1, "
     "b=2','regex_pattern':'(\134\134w)=(\134\134d)','mode':'All "
     "Groups','case_insensitive':true,'multiline':false,'dotall':false,'group_index':2}}",
     's', "1\0122", 0},
    {"{'class_type':'RegexExtract','inputs':{'string':'ba','regex_pattern':'(a)|b','mode':'All "
     "Groups','case_insensitive':true,'multiline':false,'dotall':false,'group_index':1}}",
     'e', "", 0},
    {"{'class_type':'RegexExtract','inputs':{'string':'abxd','regex_pattern':'x*','mode':'All "
     "Groups','case_insensitive':true,'multiline':false,'dotall':false,'group_index':0}}",
     's', "", 0},
    {"{'class_type':'RegexExtract','inputs':{'string':'xxy','regex_pattern':'(x)(y)\077','mode':'"
     "All Groups','case_insensitive':true,'multiline':false,'dotall':false,'group_index':1}}",
     's', "x\012x", 0},
    {"{'class_type':'RegexExtract','inputs':{'string':'x','regex_pattern':'(','mode':'All "
     "Groups','case_insensitive':true,'multiline':false,'dotall':false,'group_index':1}}",
     's', "", 0},
    {"{'class_type':'RegexExtract','inputs':{'string':'x','regex_pattern':'q(z)','mode':'All "
     "Groups','case_insensitive':true,'multiline':false,'dotall':false,'group_index':1}}",
     's', "", 0},
    {"{'class_type':'RegexExtract','inputs':{'string':'\134u00c4\134u00e4a\134u00c4','regex_"
     "pattern':'(\134u00e4+)','mode':'All "
     "Groups','case_insensitive':true,'multiline':false,'dotall':false,'group_index':1}}",
     's', "\303\204\303\244\012\303\204", 0},
    {"{'class_type':'RegexExtract','inputs':{'string':'ab','regex_pattern':'(a)(b)','mode':'All "
     "Groups','case_insensitive':true,'multiline':false,'dotall':false,'group_index':0}}",
     's', "ab", 0},
    {"{'class_type':'RegexExtract','inputs':{'string':'a','regex_pattern':'(a)','mode':'All "
     "Groups','case_insensitive':true,'multiline':false,'dotall':false,'group_index':7}}",
     's', "", 0},
    {"{'class_type':'RegexReplace','inputs':{'string':'abxd','regex_pattern':'x*','replace':'-'}}",
     's', "-a-b--d-", 0},
    {"{'class_type':'RegexReplace','inputs':{'string':'abcd','regex_pattern':'(\134\134w)("
     "\134\134w)','replace':'\134\1342\134\1341'}}",
     's', "badc", 0},
    {"{'class_type':'RegexReplace','inputs':{'string':'ab "
     "a','regex_pattern':'(\077P<k>a)(b)\077','replace':'<\134\134g<k>|\134\134g<2>>'}}",
     's', "<a|b> <a|>", 0},
    {"{'class_type':'RegexReplace','inputs':{'string':'ba','regex_pattern':'a','replace':'"
     "\134\134n\134\134t\134\134\134\134\134\134g<0>'}}",
     's', "b\012\011\134a", 0},
    {"{'class_type':'RegexReplace','inputs':{'string':'aaaa','regex_pattern':'a','replace':'b','"
     "count':2}}",
     's', "bbaa", 0},
    {"{'class_type':'RegexReplace','inputs':{'string':'a','regex_pattern':'a','replace':'"
     "\134\134065\134\1340'}}",
     's', "5\000", 0},
    {"{'class_type':'RegexReplace','inputs':{'string':'aA','regex_pattern':'A','replace':'z','case_"
     "insensitive':false}}",
     's', "az", 0},
    {"{'class_type':'RegexReplace','inputs':{'string':'a\134nb\134n','regex_pattern':'^','replace':"
     "'> ','multiline':true}}",
     's', "> a\012> b\012> ", 0},
    {"{'class_type':'RegexReplace','inputs':{'string':'a\134nb','regex_pattern':'.+','replace':'x',"
     "'dotall':true}}",
     's', "x", 0},
    {"{'class_type':'RegexReplace','inputs':{'string':'a','regex_pattern':'a','replace':'\134\134-"
     "\134\134\134u00e9'}}",
     's', "\134-\134\303\251", 0},
    {"{'class_type':'RegexReplace','inputs':{'string':'a','regex_pattern':'(','replace':'x'}}", 'e',
     "", 0},
    {"{'class_type':'RegexReplace','inputs':{'string':'a','regex_pattern':'a','replace':'\134\134q'"
     "}}",
     'e', "", 0},
    {"{'class_type':'RegexReplace','inputs':{'string':'a','regex_pattern':'a','replace':'\134\1341'"
     "}}",
     'e', "", 0},
    {"{'class_type':'RegexReplace','inputs':{'string':'a','regex_pattern':'a','replace':'\134\134g<"
     "n>'}}",
     'e', "", 0},
    {"{'class_type':'RegexReplace','inputs':{'string':'a','regex_pattern':'a','replace':'\134\134'}"
     "}",
     'e', "", 0},
    {"{'class_type':'RegexReplace','inputs':{'string':'abba','regex_pattern':'b*','replace':'-'}}",
     's', "-a--a-", 0},
    {"{'class_type':'RegexReplace','inputs':{'string':'\134u00e4b','regex_pattern':'','replace':'-'"
     "}}",
     's', "-\303\244-b-", 0},
    {"{'class_type':'RegexReplace','inputs':{'string':'no','regex_pattern':'a','replace':'"
     "\134\134q'}}",
     'e', "", 0},
    {"{'class_type':'RegexReplace','inputs':{'string':'a "
     "\134u2003\134tb','regex_pattern':'\134\134s+','replace':' '}}",
     's', "a b", 0},
};

static const uint64_t case_sums[3] = {
    1316163648008995442u,
    13872949539324909320u,
    11417967868897317946u,
};
