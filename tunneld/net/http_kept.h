/* Connections that answered HTTP requests left open, kept a few seconds for the next one to the same place: starting a
 * session takes several calls and a WebSocket, and each new connection costs both ends a TLS handshake.  Only where the
 * server says that it keeps them (Connection: keep-alive), as our gateway does. */
#ifndef TD_NET_HTTP_KEPT_H
#define TD_NET_HTTP_KEPT_H
#include "lib/list.h"
#include "tunneld/net/conn.h"

#define TD_HTTP_KEPT_MAX 64u
#define TD_HTTP_KEPT_NS (5 * TD_SEC) /* far below what servers keep them for, so that they seldom close in our face */
#define TD_HTTP_PLACE 900

struct td_http_kept {
	struct td_loop *l;
	struct tnl_list conns; /* the newest first */
	unsigned count;
	struct tnl_list leases;
};
/* Of a connection that is in use for something else and may come back. */
struct td_http_lease {
	struct tnl_list node;
	struct td_http_kept *kept; /* NULL: there is nowhere to come back to */
	char *place;
	void (*gone)(struct td_http_lease *e); /* that has just become so */
};

void td_http_kept_init(struct td_http_kept *k, struct td_loop *l);
void td_http_kept_fini(struct td_http_kept *k); /* closes them */
/* Where a connection leads, whoever uses it. */
void td_http_kept_place(char out[TD_HTTP_PLACE], bool tls, const char *host, uint16_t port,
			const struct td_proxy *proxy);
/* NULL: there is none. The caller sets its callbacks; it may prove to be closed already. */
struct td_conn *td_http_kept_take(struct td_http_kept *k, const char *place);
/* Takes c, which is open and owes nothing; one too many goes instead of it. */
void td_http_kept_put(struct td_http_kept *k, const char *place, struct td_conn *c);
/* gone may end the lease. No memory: nowhere to come back to. */
void td_http_lease_begin(struct td_http_lease *e, struct td_http_kept *k, const char *place,
			 void (*gone)(struct td_http_lease *e));
void td_http_lease_end(struct td_http_lease *e, struct td_conn *c); /* takes c; NULL: it does not come back */

#endif
