// SPDX-License-Identifier: Apache-2.0
// tcp.h - sockets between the processes of one picture: how they find and recognise each other.
// Idea: rank 0 listens at an address that all know; the others come, show that they know the secret without
// sending it (HMAC-SHA256 over both sides' random bytes) and that they run the same thing.
// Nothing is encrypted: what travels then (latents, activations) belongs on a private network.
// Every wait has a deadline on the clock of at_tcp_now. Owns: the caller owns the sockets.
#ifndef AT_PAR_TCP_H
#define AT_PAR_TCP_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

double at_tcp_now(void); // seconds, monotonic

// A listener at "HOST:PORT" ("[::1]:7000" too; port 0: any). *port gets its port.
at_status at_tcp_listen(const char *address, int *fd, int *port);
// Tries again until the deadline: who is called may not listen yet.
at_status at_tcp_connect(const char *address, double deadline, int *fd);
at_status at_tcp_accept(int listener, double deadline, int *fd);
at_status at_tcp_send(int fd, const void *data, size_t n, double deadline);
at_status at_tcp_recv(int fd, void *data, size_t n, double deadline);
// Numeric: of this end, of the other end; `port` in place of the socket's own.
at_status at_tcp_here(int fd, int port, char out[64]);
at_status at_tcp_there(int fd, int port, char out[64]);

// What a caller says of itself.
enum { AT_TCP_DATA = 1, AT_TCP_ALARM = 2 };
typedef struct at_tcp_hello {
    uint32_t kind, rank, ranks, port; // port: where it listens itself
    unsigned char job[32];            // of what must be the same in all processes
} at_tcp_hello;

// Both sides prove that they know `secret` (NULL is ""). The one who was called checks nothing else of the hello.
at_status at_tcp_greet(int fd, const char *secret, const at_tcp_hello *mine, double deadline);
at_status at_tcp_welcome(int fd, const char *secret, at_tcp_hello *theirs, double deadline);
void at_tcp_digest(const char *text, unsigned char out[32]); // SHA-256

#endif
