/* Sockets: addresses, listeners, dialing (happy through all addresses, time-limited),
 * name resolution (c-ares).  All non-blocking, all CLOEXEC. */
#ifndef TD_NET_H
#define TD_NET_H
#include "tunneld/loop.h"
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

struct td_addr { union { struct sockaddr sa; struct sockaddr_in in; struct sockaddr_in6 in6; struct sockaddr_un un; struct sockaddr_storage ss; }; socklen_t len; };
#define TD_ADDR_STR 128
const char *td_addr_str(const struct td_addr *a, char out[TD_ADDR_STR]);  /* 127.0.0.1:80, [::1]:80, unix:/path */
/* "127.0.0.1:8080", "[::1]:8080", "localhost:80" (both families: see _many), "*:80", "8080", "unix:/path". Numeric and
 * localhost only. Returns how many addresses were filled, or -1 and *fault. */
int td_addr_parse(const char *s, struct td_addr *out, int max, const char **fault);

/* --- resolver --- */
struct td_resolve;
typedef void td_resolve_fn(void *ctx, int err /* 0, TNL_ENOTFOUND, TNL_ETIMEOUT */, const struct td_addr *addrs, int n, const char *why);
/* Literals and localhost answer at once but still through the callback, deferred. */
struct td_resolve *td_resolve_start(struct td_loop *l, const char *host, uint16_t port, td_resolve_fn *fn, void *ctx);
void td_resolve_cancel(struct td_resolve *r);

/* --- dialing addresses that are already resolved --- */
struct td_dial;
/* fd >= 0: connected (yours); -1: err TNL_EREFUSED, TNL_EUNREACH or TNL_ETIMEOUT and text. */
typedef void td_dial_fn(void *ctx, int fd, const struct td_addr *peer, int err, const char *why);
struct td_dial *td_dial_start(struct td_loop *l, const struct td_addr *addrs, int n, uint64_t timeout_ns, td_dial_fn *fn, void *ctx);
void td_dial_cancel(struct td_dial *d);

/* --- listening --- */
struct td_listener;
typedef void td_accept_fn(void *ctx, int fd, const struct td_addr *peer);
/* SO_REUSEADDR, IPV6_V6ONLY; a stale unix socket is removed only when connecting to it is refused; unix sockets 0600.
 * EMFILE: gives up a reserve descriptor, pauses 1 s, logs once. Bounded accepts per turn. NULL and *why on failure. */
struct td_listener *td_listen(struct td_loop *l, const struct td_addr *a, td_accept_fn *fn, void *ctx, char *why, size_t cap);
void td_listener_addr(const struct td_listener *s, struct td_addr *out);  /* with the chosen port */
void td_listener_pause(struct td_listener *s, bool paused);               /* stop accepting, keep the backlog */
void td_listener_free(struct td_listener *s);                             /* closes; unlinks a unix socket that it made */

void td_fd_nonblock(int fd);
void td_fd_nodelay(int fd);
void td_fd_rst_close(int fd);                                             /* SO_LINGER 0 + close: RST */

#endif
