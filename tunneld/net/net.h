/* Sockets: addresses, listeners, dialing (happy through all addresses, time-limited),
 * name resolution (c-ares).  All non-blocking, all CLOEXEC. */
#ifndef TD_NET_H
#define TD_NET_H
#include "tunneld/base/loop.h"
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

struct td_addr {
	union {
		struct sockaddr sa;
		struct sockaddr_in in;
		struct sockaddr_in6 in6;
		struct sockaddr_un un;
		struct sockaddr_storage ss;
	};
	socklen_t len;
};
#define TD_ADDR_STR 128
const char *td_addr_str(const struct td_addr *a, char out[TD_ADDR_STR]); /* 127.0.0.1:80, [::1]:80, unix:/path */
/* Numeric host ("192.0.2.1", "2001:db8::1", "fe80::1%eth0") and port. */
bool td_addr_literal(const char *host, uint16_t port, struct td_addr *out);
void td_addr_set_port(struct td_addr *a, uint16_t port);
uint16_t td_addr_port(const struct td_addr *a); /* 0 for unix */
bool td_have_ipv6(void);			/* can bind to ::1 */
/* "127.0.0.1:8080", "[::1]:8080", "localhost:80" (both families, IPv6 when the host has it), "*:80" (the
 * same), "8080" (as localhost), "unix:/path". Numeric and localhost only. Port 0 is allowed. Returns how many addresses
 * were filled, or -1 and *fault. */
int td_addr_parse(const char *s, struct td_addr *out, int max, const char **fault);

/* --- resolver --- */
struct td_resolve;
typedef void td_resolve_fn(void *ctx, int err /* 0, TNL_ENOTFOUND, TNL_ETIMEOUT */, const struct td_addr *addrs, int n,
			   const char *why);
/* Literals and localhost answer at once but still through the callback, deferred. */
struct td_resolve *td_resolve_start(struct td_loop *l, const char *host, uint16_t port, td_resolve_fn *fn, void *ctx);
void td_resolve_cancel(struct td_resolve *r);

/* --- dialing addresses that are already resolved --- */
struct td_dial;
/* Tries the next address when one failed, or beside it after 250 ms. Never called from inside td_dial_start
 * (NULL: no memory). fd >= 0: connected (yours); -1: err TNL_EREFUSED, TNL_EUNREACH or TNL_ETIMEOUT and text. */
typedef void td_dial_fn(void *ctx, int fd, const struct td_addr *peer, int err, const char *why);
struct td_dial *td_dial_start(struct td_loop *l, const struct td_addr *addrs, int n, uint64_t timeout_ns,
			      td_dial_fn *fn, void *ctx);
void td_dial_cancel(struct td_dial *d);

/* --- listening --- */
struct td_listener;
typedef void td_accept_fn(void *ctx, int fd, const struct td_addr *peer);
/* SO_REUSEADDR, IPV6_V6ONLY; a stale unix socket is removed only when connecting to it is refused; unix sockets 0600.
 * EMFILE: gives up a reserve descriptor, pauses 1 s, logs once. Bounded accepts per turn. NULL and *why on failure. */
struct td_listener *td_listen(struct td_loop *l, const struct td_addr *a, td_accept_fn *fn, void *ctx, char *why,
			      size_t cap);
void td_listener_addr(const struct td_listener *s, struct td_addr *out); /* with the chosen port */
void td_listener_pause(struct td_listener *s, bool paused);		 /* stop accepting, keep the backlog */
void td_listener_free(struct td_listener *s); /* closes; unlinks a unix socket that it made */

void td_fd_nonblock(int fd); /* and close-on-exec */
void td_fd_nodelay(int fd);
void td_fd_rst_close(int fd); /* SO_LINGER 0 + close: RST */

#endif
