// SPDX-License-Identifier: Apache-2.0
// priority.h - who gets the cores when a server accepts, answers and computes on the same ones.
// Idea: where the CPU runs the jobs, its process and the thread that feeds it stand some steps of `nice` behind the loop: a page
// and a POST /prompt are answered at once while jobs take what is left, which on an idle machine is everything. A GPU's process
// keeps its priority: it is on the CPU for moments, and the GPU waits for it then.
// Easy to get wrong: on Linux `nice` is a thread's, given to those that it starts; a pool that is there already keeps its own.
// Nobody but an administrator can take it back.
// Owns: nothing.
#ifndef AT_SERVE_PRIORITY_H
#define AT_SERVE_PRIORITY_H

// Behind the priority that the program was started with. A failure changes nothing.
void at_priority_lower_thread(void);  // the calling one
void at_priority_lower_process(void); // all threads that are there

#endif
