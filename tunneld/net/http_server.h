/* HTTP/1.1 server on a listener: strict heads within 10 s and 16 KiB, bodies by
 * Content-Length up to body_max, keep-alive, WebSocket upgrades handed over.
 * Connections per peer address are limited, before anybody is authenticated; one that is refused 32 times in a row is
 * closed. */
#ifndef TD_NET_HTTP_SERVER_H
#define TD_NET_HTTP_SERVER_H
#include "lib/http.h"
#include "tunneld/net/wslink.h"

struct td_http_server;
struct td_request;
struct td_http_server_config {
	const struct td_addr *addrs;
	int naddrs;		  /* copied; unix sockets too */
	struct tnl_tls_ctx *tls;  /* NULL: plain; a reference is taken */
	size_t body_max;	  /* 0: 64 KiB */
	unsigned per_peer_max;	  /* connections per address; 0: 256 */
	uint64_t head_timeout_ns; /* 0: 10 s */
	/* A whole request. Answer with td_request_reply or td_request_upgrade, now or later. */
	void (*request)(void *ctx, struct td_request *r);
	/* The peer went away before the answer: drop the pointer. */
	void (*gone)(void *ctx, struct td_request *r);
	/* Is that peer a balancer, whose connections begin with a PROXY header?  They are then of whom it names, in all
	 * that counts and limits.  NULL: none is. */
	bool (*behind)(void *ctx, const struct td_addr *peer);
	/* Something refused before it became a request, for counters and the log (once each): "413 body" */
	void (*refused)(void *ctx, const char *peer, int status, const char *field);
	/* One that had not sent a whole request was closed for others, for a counter. May be NULL. */
	void (*made_way)(void *ctx);
	/* Memory is full: let go of what can be spared. May be NULL. */
	void (*crowded)(void *ctx);
	void *ctx;
};
/* Cuts off open requests without a gone() call when freed. Does not accept while td_memory_full(), also after
 * crowded(): what is beyond the shares of sessions is its own. */
struct td_http_server *td_http_server_new(struct td_loop *l, const struct td_http_server_config *c, char *why,
					  size_t cap);
void td_http_server_free(struct td_http_server *h);
/* One more connection, without TLS, which begins with a PROXY header of one of us (td_conn_vouched); it is closed
 * behind the answer to its first request. Takes fd. `number` is not 0 and says which one it is. */
void td_http_server_hand(struct td_http_server *h, int fd, uint64_t number);
/* Takes a connection that this server has let go of, and whose next request is to come or has begun to. */
void td_http_server_take(struct td_http_server *h, struct td_conn *c, const struct td_addr *peer,
			 const struct tnl_buf *early);
void td_http_server_stop_listening(struct td_http_server *h);
void td_http_server_set_tls(struct td_http_server *h, struct tnl_tls_ctx *tls); /* from now on; a reference is taken */
/* Where the i-th listens, with the chosen port; -1: there is none. */
int td_http_server_addr(const struct td_http_server *h, int i, struct td_addr *out);
size_t td_http_server_connections(const struct td_http_server *h);

const struct tnl_http_head *td_request_head(const struct td_request *r);
const uint8_t *td_request_body(const struct td_request *r, size_t *n);
const char *td_request_peer(const struct td_request *r);
bool td_request_cert_named(const struct td_request *r, const char *name); /* td_conn_cert_named */
struct tnl_tls *td_request_tls(const struct td_request *r);		  /* td_conn_tls of its connection */
const struct td_addr *td_request_peer_addr(const struct td_request *r);
uint64_t td_request_handed(const struct td_request *r); /* number of td_http_server_hand; 0: it came by itself */
void td_request_set_user(struct td_request *r, void *u);
void *td_request_user(const struct td_request *r);
/* Ends the request: r is not to be used after it. content_type NULL: none. Connection: close is added when `close`
 * was asked for by the peer or the server is stopping. */
void td_request_reply(struct td_request *r, int status, const char *content_type, const char *const (*headers)[2],
		      size_t n, const void *body, size_t len);
/* Lets go of the connection, at the head of this request: all that was read of it is appended to `bytes`, what comes is
 * the caller's. r is not to be used after it. NULL: no memory, connection dropped. */
struct td_conn *td_request_detach(struct td_request *r, struct tnl_buf *bytes);
bool td_request_is_upgrade(const struct td_request *r); /* a valid WebSocket upgrade (version 13, key) */
/* Answers 101 and turns the connection into a link. r is not to be used after it. NULL: no memory, connection dropped.
 */
bool td_request_offers_return(const struct td_request *r); /* of an upgrade, see td_wslink_opts */
struct td_wslink *td_request_upgrade(struct td_request *r, const struct td_wslink_opts *o,
				     const struct td_wslink_cb *cb, void *ctx);

#endif
