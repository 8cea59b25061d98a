/* Inside of td_http_server, shared by http_server.c (connections and requests), http_server_reply.c (answers)
 * and http_server_silent.c (who has not sent a whole request). */
#ifndef TD_NET_HTTP_SERVER_INTERNAL_H
#define TD_NET_HTTP_SERVER_INTERNAL_H
#include "lib/buf.h"
#include "lib/list.h"
#include "tunneld/base/memory.h"
#include "tunneld/net/http_server.h"
#include "tunneld/net/listen.h"
#include "tunneld/net/peers.h"

/*   HEAD → BODY → BUSY (the role has the request) → REPLY (answer goes out) → HEAD …
 *   any → DRAIN (answer goes out, then close) → GONE (freed, its memory until the end of the turn) */
enum hconn_state { HC_HEAD, HC_BODY, HC_BUSY, HC_REPLY, HC_DRAIN, HC_GONE };

struct hconn;
struct td_request {
	struct hconn *hc;
	struct tnl_http_head head; /* slices into hc->in */
	size_t head_len, body_len;
	void *user;
};

struct silent_list { /* connections whose request is not whole, the oldest first; of the later ones, once it began */
	struct tnl_list list;
	size_t n, bytes; /* what they take */
};

struct hconn {
	struct tnl_list node;
	struct tnl_list silent; /* in one of the server's */
	size_t takes;		/* of its bytes */
	struct td_http_server *h;
	struct td_conn *conn;
	struct td_request *req;
	enum hconn_state state;
	struct td_timer timer;
	struct tnl_buf in, ahead, out;
	struct tnl_http_wait head; /* of what is in `in` */
	struct td_addr peer;
	struct td_peer counted;
	struct td_soon process; /* what came ahead of an answer */
	size_t owed;		/* the answer that goes out, whole, then what the connection has of it; 0: it is out */
	uint64_t handed;	/* number of td_http_server_hand */
	unsigned refusals;	/* in a row */
	bool close_after, served, continued;
	bool asks_keep; /* the client says that it would come again: it is told that it can */
};

struct td_http_server {
	struct td_loop *l;
	struct td_http_server_config cfg;
	struct td_listener **listeners;
	int nlisteners;
	struct tnl_list conns; /* the oldest first */
	struct silent_list silent, silent_handed;
	struct td_memory_waiter room;
	struct td_peers *peers;
	size_t count;
	size_t owed;	  /* of all connections */
	uint64_t full_at; /* monotonic; when it was said that memory is full */
	bool full_told;	  /* and that it is over is not */
	bool stopping;
};

void td_hconn_free(struct hconn *c);
void td_hconn_next(struct hconn *c); /* the answer is out: the next request, or close */
void td_hconn_answer(struct hconn *c, int status, const char *content_type, const char *const (*headers)[2], size_t n,
		     const void *body, size_t len, bool head_only);
void td_hconn_send(struct hconn *c);
void td_hconn_set_owed(struct hconn *c, size_t n);
void td_hconn_drop_request(struct hconn *c);

void td_hconn_silent(struct hconn *c); /* its request is to come, or has begun */
void td_hconn_heard(struct hconn *c);
void td_hconn_grown(struct hconn *c); /* more of it has come; somebody may have to go, it itself as well */
/* Whoever says nothing makes way for whoever comes: the oldest of this peer's that has not sent a whole head yet, or of
 * anybody's when there are very many, from however many addresses.  Behind one address there may be a whole office. */
bool td_http_server_drop_silent(struct silent_list *l, const struct td_peer *of);
void td_http_server_make_way(struct td_http_server *h); /* for one that comes */
void td_http_server_make_way_handed(struct td_http_server *h);

#endif
