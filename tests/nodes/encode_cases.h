// SPDX-License-Identifier: Apache-2.0
// encode_cases.h - made by tools/golden/encode_nodes.py from ComfyUI 0.3.64: a loader `c` and an encoder `t`,
// and shape and two weighted sums of context and pooled.
static const encode_case encode_cases[] = {
    {"'c':{'class_type':'CLIPLoader','inputs':{'clip_name':'tiny_clip_l.safetensors','"
     "type':'stable_diffusion'}},'t':{'class_type':'CLIPTextEncode','inputs':{'text':'"
     "a (red:1.3) circle, ((blue)) square','clip':['c',0]}}",
     {{1, 77, 128}, 0.0945377918, 0.0243386229},
     {{1, 128}, 0.764533896, -0.745449092}},
    {"'c':{'class_type':'CLIPLoader','inputs':{'clip_name':'tiny_clip_l.safetensors','"
     "type':'stable_diffusion'}},'s':{'class_type':'CLIPSetLastLayer','inputs':{'clip'"
     ":['c',0],'stop_at_clip_layer':-1}},'t':{'class_type':'CLIPTextEncode','inputs':{"
     "'text':'a (red:1.3) circle, ((blue)) square','clip':['s',0]}}",
     {{1, 77, 128}, 0.0945377918, 0.0243386229},
     {{1, 128}, 0.764533896, -0.745449092}},
    {"'c':{'class_type':'CLIPLoader','inputs':{'clip_name':'tiny_clip_l.safetensors','"
     "type':'stable_diffusion'}},'s':{'class_type':'CLIPSetLastLayer','inputs':{'clip'"
     ":['c',0],'stop_at_clip_layer':-2}},'t':{'class_type':'CLIPTextEncode','inputs':{"
     "'text':'a red circle','clip':['s',0]}}",
     {{1, 77, 128}, 0.0718095692, -0.0590477246},
     {{1, 128}, 0.606686718, -0.581543632}},
    {"'c':{'class_type':'CLIPLoader','inputs':{'clip_name':'tiny_clip_l.safetensors','"
     "type':'stable_diffusion'}},'s':{'class_type':'CLIPSetLastLayer','inputs':{'clip'"
     ":['c',0],'stop_at_clip_layer':-24}},'t':{'class_type':'CLIPTextEncode','inputs':"
     "{'text':'a red circle','clip':['s',0]}}",
     {{1, 77, 128}, 0.0475212727, -0.0270764551},
     {{1, 128}, 0.606686718, -0.581543632}},
    {"'c':{'class_type':'CLIPLoader','inputs':{'clip_name':'tiny_clip_l.safetensors','"
     "type':'stable_diffusion'}},'t':{'class_type':'CLIPTextEncode','inputs':{'text':'"
     "a red circle and a blue square, a red circle and a blue square, a red circle and"
     " a blue square, a red circle and a blue square, a red circle and a blue square, "
     "a red circle and a blue square, a red circle and a blue square, a red circle and"
     " a blue square, a red circle and a blue square, (a green star:0.6) on white','cl"
     "ip':['c',0]}}",
     {{1, 154, 128}, -0.12476209, -0.164510292},
     {{1, 128}, 0.455011309, -0.654906903}},
    {"'c':{'class_type':'CLIPLoader','inputs':{'clip_name':'tiny_clip_l.safetensors','"
     "type':'stable_diffusion'}},'t':{'class_type':'CLIPTextEncode','inputs':{'text':'"
     "','clip':['c',0]}}",
     {{1, 77, 128}, 0.00567973119, -0.0289312513},
     {{1, 128}, 0.971524812, -0.668160338}},
    {"'c':{'class_type':'CLIPLoader','inputs':{'clip_name':'tiny_clip_h.safetensors','"
     "type':'stable_diffusion'}},'t':{'class_type':'CLIPTextEncode','inputs':{'text':'"
     "a (red:1.3) circle, ((blue)) square','clip':['c',0]}}",
     {{1, 77, 64}, 0.0479904061, -0.018559202},
     {{1, 64}, 0.321530234, 0.205289475}},
    {"'c':{'class_type':'CLIPLoader','inputs':{'clip_name':'tiny_clip_h.safetensors','"
     "type':'stable_diffusion'}},'s':{'class_type':'CLIPSetLastLayer','inputs':{'clip'"
     ":['c',0],'stop_at_clip_layer':-1}},'t':{'class_type':'CLIPTextEncode','inputs':{"
     "'text':'a red circle','clip':['s',0]}}",
     {{1, 77, 64}, 0.121791164, 0.0822960606},
     {{1, 64}, 0.230203681, 0.232417222}},
    {"'c':{'class_type':'CLIPLoader','inputs':{'clip_name':'tiny_clip_h.safetensors','"
     "type':'sd3'}},'s':{'class_type':'CLIPSetLastLayer','inputs':{'clip':['c',0],'sto"
     "p_at_clip_layer':-5}},'t':{'class_type':'CLIPTextEncode','inputs':{'text':'a cir"
     "cle','clip':['s',0]}}",
     {{1, 77, 64}, 0.0791274054, -0.00885032184},
     {{1, 64}, 0.284490397, 0.209010059}},
    {"'c':{'class_type':'CLIPLoader','inputs':{'clip_name':'tiny_clip_g.safetensors','"
     "type':'stable_diffusion'}},'t':{'class_type':'CLIPTextEncode','inputs':{'text':'"
     "a (red:1.3) circle, ((blue)) square','clip':['c',0]}}",
     {{1, 77, 64}, -3.12418189, 0.880858461},
     {{1, 64}, 0.0568642115, 0.0937077475}},
    {"'c':{'class_type':'CLIPLoader','inputs':{'clip_name':'tiny_clip_g.safetensors','"
     "type':'stable_diffusion'}},'s':{'class_type':'CLIPSetLastLayer','inputs':{'clip'"
     ":['c',0],'stop_at_clip_layer':-1}},'t':{'class_type':'CLIPTextEncode','inputs':{"
     "'text':'a red circle','clip':['s',0]}}",
     {{1, 77, 64}, -1.65889715, 0.0137443556},
     {{1, 64}, 0.464253784, 0.0104958121}},
    {"'c':{'class_type':'DualCLIPLoader','inputs':{'clip_name1':'tiny_clip_l.safetenso"
     "rs','clip_name2':'tiny_clip_g.safetensors','type':'sdxl'}},'t':{'class_type':'CL"
     "IPTextEncode','inputs':{'text':'a (red:1.3) circle, ((blue)) square','clip':['c'"
     ",0]}}",
     {{1, 77, 192}, -0.329582837, -1.97786092},
     {{1, 64}, 0.0568642115, 0.0937077475}},
    {"'c':{'class_type':'DualCLIPLoader','inputs':{'clip_name1':'tiny_clip_l.safetenso"
     "rs','clip_name2':'tiny_clip_g.safetensors','type':'sdxl'}},'t':{'class_type':'CL"
     "IPTextEncode','inputs':{'text':'a red circle and a blue square, a red circle and"
     " a blue square, a red circle and a blue square, a red circle and a blue square, "
     "a red circle and a blue square, a red circle and a blue square, a red circle and"
     " a blue square, a red circle and a blue square, a red circle and a blue square, "
     "(a green star:0.6) on white','clip':['c',0]}}",
     {{1, 154, 192}, -0.0836935951, -1.8045896},
     {{1, 64}, -0.085965305, -0.0150747687}},
    {"'c':{'class_type':'DualCLIPLoader','inputs':{'clip_name1':'tiny_clip_g.safetenso"
     "rs','clip_name2':'tiny_clip_l.safetensors','type':'sdxl'}},'s':{'class_type':'CL"
     "IPSetLastLayer','inputs':{'clip':['c',0],'stop_at_clip_layer':-1}},'t':{'class_t"
     "ype':'CLIPTextEncode','inputs':{'text':'a red circle','clip':['s',0]}}",
     {{1, 77, 192}, -0.166721303, -0.33483584},
     {{1, 64}, 0.464253784, 0.0104958121}},
    {"'c':{'class_type':'DualCLIPLoader','inputs':{'clip_name1':'tiny_clip_l.safetenso"
     "rs','clip_name2':'tiny_clip_g.safetensors','type':'sdxl'}},'s':{'class_type':'CL"
     "IPSetLastLayer','inputs':{'clip':['c',0],'stop_at_clip_layer':-3}},'t':{'class_t"
     "ype':'CLIPTextEncode','inputs':{'text':'a red circle','clip':['s',0]}}",
     {{1, 77, 192}, -0.41518977, -0.337755709},
     {{1, 64}, 0.464253784, 0.0104958121}},
    {"'c':{'class_type':'DualCLIPLoader','inputs':{'clip_name1':'tiny_clip_l.safetenso"
     "rs','clip_name2':'tiny_clip_g.safetensors','type':'sdxl'}},'s':{'class_type':'CL"
     "IPSetLastLayer','inputs':{'clip':['c',0],'stop_at_clip_layer':-24}},'t':{'class_"
     "type':'CLIPTextEncode','inputs':{'text':'a red circle','clip':['s',0]}}",
     {{1, 77, 192}, -0.434012366, 1.70328525},
     {{1, 64}, 0.464253784, 0.0104958121}},
    {"'c':{'class_type':'DualCLIPLoader','inputs':{'clip_name1':'tiny_clip_l.safetenso"
     "rs','clip_name2':'tiny_clip_g.safetensors','type':'sdxl'}},'t':{'class_type':'CL"
     "IPTextEncodeSDXL','inputs':{'width':832,'height':1216,'crop_w':8,'crop_h':16,'ta"
     "rget_width':1024,'target_height':960,'text_g':'a red circle','text_l':'a red cir"
     "cle and a blue square, a red circle and a blue square, a red circle and a blue s"
     "quare, a red circle and a blue square, a red circle and a blue square, a red cir"
     "cle and a blue square, a red circle and a blue square, a red circle and a blue s"
     "quare, a red circle and a blue square, (a green star:0.6) on white','clip':['c',"
     "0]}}",
     {{1, 154, 192}, -0.333245409, 0.234910923},
     {{1, 64}, 0.464253926, 0.0104957036}},
    {"'c':{'class_type':'DualCLIPLoader','inputs':{'clip_name1':'tiny_clip_l.safetenso"
     "rs','clip_name2':'tiny_clip_g.safetensors','type':'sdxl'}},'t':{'class_type':'CL"
     "IPTextEncodeSDXL','inputs':{'width':832,'height':1216,'crop_w':8,'crop_h':16,'ta"
     "rget_width':1024,'target_height':960,'text_g':'a red circle and a blue square, a"
     " red circle and a blue square, a red circle and a blue square, a red circle and "
     "a blue square, a red circle and a blue square, a red circle and a blue square, a"
     " red circle and a blue square, a red circle and a blue square, a red circle and "
     "a blue square, (a green star:0.6) on white','text_l':'a (red:1.3) circle, ((blue"
     ")) square','clip':['c',0]}}",
     {{1, 154, 192}, 0.248963334, -2.0845752},
     {{1, 64}, -0.085965305, -0.0150747687}},
    {"'c':{'class_type':'DualCLIPLoader','inputs':{'clip_name1':'tiny_clip_l.safetenso"
     "rs','clip_name2':'tiny_clip_g.safetensors','type':'sdxl'}},'t':{'class_type':'CL"
     "IPTextEncodeSDXL','inputs':{'width':832,'height':1216,'crop_w':8,'crop_h':16,'ta"
     "rget_width':1024,'target_height':960,'text_g':'','text_l':'a star','clip':['c',0"
     "]}}",
     {{1, 77, 192}, 0.144768108, -0.24866108},
     {{1, 64}, 0.788449882, -0.0285592919}},
    {"'c':{'class_type':'CLIPLoader','inputs':{'clip_name':'tiny_clip_g.safetensors','"
     "type':'stable_diffusion'}},'t':{'class_type':'CLIPTextEncodeSDXL','inputs':{'wid"
     "th':832,'height':1216,'crop_w':8,'crop_h':16,'target_width':1024,'target_height'"
     ":960,'text_g':'a red circle','text_l':'a red circle and a blue square, a red cir"
     "cle and a blue square, a red circle and a blue square, a red circle and a blue s"
     "quare, a red circle and a blue square, a red circle and a blue square, a red cir"
     "cle and a blue square, a red circle and a blue square, a red circle and a blue s"
     "quare, (a green star:0.6) on white','clip':['c',0]}}",
     {{1, 154, 64}, -3.10779856, 0.0506901352},
     {{1, 64}, 0.464253926, 0.0104957036}},
    {"'c':{'class_type':'CLIPLoader','inputs':{'clip_name':'tiny_clip_g.safetensors','"
     "type':'stable_diffusion'}},'t':{'class_type':'CLIPTextEncodeSDXLRefiner','inputs"
     "':{'ascore':7.5,'width':640,'height':512,'text':'a (red:1.3) circle, ((blue)) sq"
     "uare','clip':['c',0]}}",
     {{1, 77, 64}, -3.12418189, 0.880858461},
     {{1, 64}, 0.0568642115, 0.0937077475}},
    {"'c':{'class_type':'CLIPLoader','inputs':{'clip_name':'tiny_clip_l.safetensors','"
     "type':'sd3'}},'t':{'class_type':'CLIPTextEncode','inputs':{'text':'a (red:1.3) c"
     "ircle, ((blue)) square','clip':['c',0]}}",
     {{1, 77, 4096}, -0.0376926281, 0.00300642376},
     {{1, 1408}, 0.230515643, -0.224761358}},
    {"'c':{'class_type':'CLIPLoader','inputs':{'clip_name':'tiny_clip_g.safetensors','"
     "type':'sd3'}},'t':{'class_type':'CLIPTextEncode','inputs':{'text':'a red circle'"
     ",'clip':['c',0]}}",
     {{1, 77, 4096}, 0.00408061777, -0.12731206},
     {{1, 832}, -0.0148630976, -0.233854341}},
    {"'c':{'class_type':'DualCLIPLoader','inputs':{'clip_name1':'tiny_clip_l.safetenso"
     "rs','clip_name2':'tiny_clip_g.safetensors','type':'sd3'}},'t':{'class_type':'CLI"
     "PTextEncode','inputs':{'text':'a (red:1.3) circle, ((blue)) square','clip':['c',"
     "0]}}",
     {{1, 77, 4096}, 0.156656303, 0.279767296},
     {{1, 192}, 0.0221596901, -1.19733486}},
    {"'c':{'class_type':'CLIPLoader','inputs':{'clip_name':'tiny_t5.safetensors','type"
     "':'sd3'}},'t':{'class_type':'CLIPTextEncode','inputs':{'text':'a (red:1.3) circl"
     "e, ((blue)) square','clip':['c',0]}}",
     {{1, 77, 64}, 0.00744713364, -0.501515562},
     {{1, 2048}, 0, 0}},
    {"'c':{'class_type':'DualCLIPLoader','inputs':{'clip_name1':'tiny_clip_l.safetenso"
     "rs','clip_name2':'tiny_clip_g.safetensors','type':'sd3'}},'t':{'class_type':'CLI"
     "PTextEncodeSD3','inputs':{'clip_l':'a star','clip_g':'','t5xxl':'','empty_paddin"
     "g':'none','clip':['c',0]}}",
     {{1, 77, 4096}, 0.267558235, 0.0418540069},
     {{1, 192}, -0.182625911, -0.831703518}},
    {"'c':{'class_type':'DualCLIPLoader','inputs':{'clip_name1':'tiny_clip_l.safetenso"
     "rs','clip_name2':'tiny_clip_g.safetensors','type':'sd3'}},'t':{'class_type':'CLI"
     "PTextEncodeSD3','inputs':{'clip_l':'','clip_g':'','t5xxl':'','empty_padding':'no"
     "ne','clip':['c',0]}}",
     {{1, 77, 4096}, 0, 0},
     {{1, 2048}, 0, 0}},
    {"'c':{'class_type':'DualCLIPLoader','inputs':{'clip_name1':'tiny_clip_l.safetenso"
     "rs','clip_name2':'tiny_clip_g.safetensors','type':'sd3'}},'t':{'class_type':'CLI"
     "PTextEncodeSD3','inputs':{'clip_l':'','clip_g':'a red circle and a blue square, "
     "a red circle and a blue square, a red circle and a blue square, a red circle and"
     " a blue square, a red circle and a blue square, a red circle and a blue square, "
     "a red circle and a blue square, a red circle and a blue square, a red circle and"
     " a blue square, (a green star:0.6) on white','t5xxl':'x','empty_padding':'none',"
     "'clip':['c',0]}}",
     {{1, 154, 4096}, -0.124489377, 0.104664411},
     {{1, 192}, 0.307710103, -0.883625701}},
    {"'c':{'class_type':'DualCLIPLoader','inputs':{'clip_name1':'tiny_clip_l.safetenso"
     "rs','clip_name2':'tiny_clip_g.safetensors','type':'sd3'}},'t':{'class_type':'CLI"
     "PTextEncodeSD3','inputs':{'clip_l':'','clip_g':'a star','t5xxl':'','empty_paddin"
     "g':'empty_prompt','clip':['c',0]}}",
     {{1, 77, 4096}, 0.297094218, 0.00900120735},
     {{1, 192}, 0.109783204, -1.02418889}},
    {"'c':{'class_type':'CLIPLoader','inputs':{'clip_name':'tiny_t5.safetensors','type"
     "':'sd3'}},'t':{'class_type':'CLIPTextEncodeSD3','inputs':{'clip_l':'','clip_g':'"
     "','t5xxl':'','empty_padding':'none','clip':['c',0]}}",
     {{1, 1, 64}, -0.729505985, 0.187519798},
     {{1, 2048}, 0, 0}},
    {"'c':{'class_type':'CLIPLoader','inputs':{'clip_name':'tiny_t5.safetensors','type"
     "':'sd3'}},'t':{'class_type':'CLIPTextEncodeSD3','inputs':{'clip_l':'','clip_g':'"
     "','t5xxl':'a (red:1.5) star','empty_padding':'none','clip':['c',0]}}",
     {{1, 77, 64}, -0.109089678, 0.00869663859},
     {{1, 2048}, 0, 0}},
    {"'c':{'class_type':'DualCLIPLoader','inputs':{'clip_name1':'tiny_clip_l.safetenso"
     "rs','clip_name2':'tiny_t5.safetensors','type':'flux'}},'t':{'class_type':'CLIPTe"
     "xtEncode','inputs':{'text':'a (red:1.3) circle, ((blue)) square','clip':['c',0]}"
     "}",
     {{1, 256, 64}, 0.0882179206, -0.214586769},
     {{1, 128}, 0.764533896, -0.745449092}},
    {"'c':{'class_type':'DualCLIPLoader','inputs':{'clip_name1':'tiny_clip_l.safetenso"
     "rs','clip_name2':'tiny_t5.safetensors','type':'flux'}},'s':{'class_type':'CLIPSe"
     "tLastLayer','inputs':{'clip':['c',0],'stop_at_clip_layer':-2}},'t':{'class_type'"
     ":'CLIPTextEncode','inputs':{'text':'a red circle','clip':['s',0]}}",
     {{1, 256, 64}, 0.0769254886, -0.0233142548},
     {{1, 128}, 0.606686718, -0.581543632}},
};
