/* A WebSocket over a td_conn, client (dial + upgrade) or server (adopted after the
 * upgrade).  Pings and pong time-outs by itself; back-pressure by room()/pause. */
#ifndef TD_NET_WSLINK_H
#define TD_NET_WSLINK_H
#include "lib/sigv4.h"
#include "lib/ws.h"
#include "tunneld/net/conn.h"

struct td_wslink;
/* code: of the close frame; 1006 when there was none. err: TNL_EEOF after a close frame (either side's). */
struct td_wslink_cb {
	void (*open)(void *ctx); /* upgrade done (dialed links only). May be NULL */
	void (*message)(void *ctx, enum tnl_ws_op op, uint8_t *p,
			size_t n);    /* TEXT or BINARY; valid during the call; may free the link */
	void (*batch_end)(void *ctx); /* after the messages of one read: pump now. May be NULL */
	void (*writable)(void *ctx);  /* room again */
	void (*closed)(void *ctx, int err, uint16_t code, int http_status,
		       const char *why); /* then td_wslink_free. http_status: refused upgrade, with body text in why */
};
struct td_wslink_opts {
	struct tnl_tls_ctx *tls;
	const struct td_proxy *proxy;
	uint64_t timeout_ns;
	const struct tnl_sigv4_keys *keys;
	const char *region, *service; /* sign the upgrade; NULL: do not */
	uint64_t ping_ns, pong_ns;
	size_t max_message; /* 0: no pings; 20 s; 256 KiB */
};
struct td_wslink *td_wslink_dial(struct td_loop *l, const char *url /* wss:// or ws:// */,
				 const struct td_wslink_opts *o, const struct td_wslink_cb *cb, void *ctx);
/* An open link at once, no open() call. Takes the conn whose upgrade has been answered with 101; `early` bytes were
 * read behind the head. */
struct td_wslink *td_wslink_adopt(struct td_loop *l, struct td_conn *c, const void *early, size_t n,
				  const struct td_wslink_opts *o, const struct td_wslink_cb *cb, void *ctx);
void td_wslink_set_cb(struct td_wslink *w, const struct td_wslink_cb *cb, void *ctx);
int td_wslink_send(struct td_wslink *w, enum tnl_ws_op op, const void *p,
		   size_t n);			  /* 0, TNL_EAGAIN (room too small), TNL_ECLOSED */
size_t td_wslink_room(const struct td_wslink *w); /* payload bytes that send takes now; 0 while not open */
size_t td_wslink_queued(const struct td_wslink *w);
/* What was sent in this turn may wait so long for company, if that is all: the next send takes it along. */
void td_wslink_linger(struct td_wslink *w, uint64_t ns);
void td_wslink_pause(struct td_wslink *w,
		     bool paused);	  /* takes effect before the next message; no pong is waited for meanwhile */
void td_wslink_ping(struct td_wslink *w); /* now (after a sleep) */
void td_wslink_close(struct td_wslink *w, uint16_t code, const char *reason); /* polite; closed() comes within 2 s */
void td_wslink_free(struct td_wslink *w);				      /* at once; safe inside callbacks */
const char *td_wslink_peer(const struct td_wslink *w);

#endif
