/* Inside of td_conn, shared by conn.c (an open connection) and conn_open.c (getting there). */
#ifndef TD_NET_CONN_INTERNAL_H
#define TD_NET_CONN_INTERNAL_H
#include "lib/buf.h"
#include "lib/http.h"
#include "tunneld/net/conn.h"
#include "tunneld/net/tcp_hop.h"

/*   RESOLVE → CONNECT → [PROXY_TLS] → [PROXY] → [TLS] → OPEN → CLOSING → (closed told)
 *   accepted:                          [BEHIND] → [TLS] → OPEN
 * Any state goes to END on an error. */
enum conn_state {
	CONN_RESOLVE,
	CONN_CONNECT,
	CONN_PROXY_TLS,
	CONN_PROXY,
	CONN_BEHIND,
	CONN_TLS,
	CONN_OPEN,
	CONN_CLOSING,
	CONN_END
};

#define CONN_EARLY_MAX (16u * 1024)

/* Wanted only until the connection is open. */
struct conn_opening {
	char host[256], tls_name[256];
	uint16_t port;
	bool has_proxy;
	struct td_proxy proxy;
	struct td_resolve *resolve;
	struct td_dial *dial;
	uint64_t deadline;
	struct tnl_buf head; /* the proxy's answer */
	struct tnl_http_wait head_wait;
};

struct td_conn {
	struct td_loop *l;
	struct td_conn_cb cb;
	void *ctx;
	enum conn_state state;
	int fd;
	ev_io rd, wr;
	struct td_timer timer; /* time to be open; of the next trim; time to be closed */
	struct tnl_tls_ctx *tls_ctx;
	struct tnl_tls *tls;   /* end to end */
	struct tnl_tls *outer; /* to the proxy */
	struct tnl_buf early;  /* read behind the proxy's head; BEHIND: the PROXY header */
	struct tnl_buf stage;  /* plaintext not yet in a record; without TLS: all that waits */
	struct conn_opening *op;
	bool vouched;	      /* who hands it on has looked at the certificate: `vouch` counts */
	struct tnl_buf vouch; /* the PROXY header then, with the names of the certificate */
	int64_t budget;	      /* bytes that this turn may still read */
	size_t discarded;
	struct td_tcp_hop hop;
	bool sock_more, progress, drained, paused;
	bool blocked;  /* the kernel takes no more: the write watcher runs */
	bool heard;    /* bytes of TLS have come */
	bool high;     /* queue went over half: writable() when it is below again */
	bool emptying; /* that when nothing is queued */
	bool write_failed, notified, half_closed, eof;
	struct td_soon flush; /* what was written in this turn goes out */
	struct td_soon pump;  /* bytes that no socket event will tell of are handed over */
	struct td_soon step;  /* begin (accepted), ready() or closed(), by the state */
	int end;	      /* why it is over, 0: it is not, or it was freed */
	char why[320];
	char peer[TD_ADDR_STR];
};

struct td_conn *td_conn_new(struct td_loop *l, const struct td_conn_cb *cb, void *ctx);
void td_conn_set_fd(struct td_conn *c, int fd, const struct td_addr *peer);
void td_conn_set_state(struct td_conn *c, enum conn_state s);
void td_conn_end(struct td_conn *c, int err, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* >0, 0 end, TNL_EAGAIN, TNL_EIO (errno). fd: below everything; low: below the end-to-end TLS. */
ssize_t td_conn_fd_read(struct td_conn *c, void *p, size_t n);
ssize_t td_conn_low_read(struct td_conn *c, void *p, size_t n);

void td_conn_step(void *c);		      /* of the member of this name */
void td_conn_opening_step(struct td_conn *c); /* bytes came or went while not yet open */
void td_conn_settle(struct td_conn *c);	      /* at the end of each event: buffers that hold nothing go */
void td_conn_opening_free(struct td_conn *c);

#endif
