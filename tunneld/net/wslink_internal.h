/* Inside of td_wslink, shared by wslink.c (an open link) and wslink_open.c (getting there). */
#ifndef TD_NET_WSLINK_INTERNAL_H
#define TD_NET_WSLINK_INTERNAL_H
#include "tunneld/net/wslink.h"

#define WSLINK_WHY 2048

/*   UPGRADE → OPEN → CLOSING → END; any state → END */
enum wslink_state { WSL_UPGRADE, WSL_OPEN, WSL_CLOSING, WSL_END };

struct wslink_limits {
	uint64_t ping_ns, pong_ns;
	size_t max_message;
	bool whole_only;
};
struct wslink_upgrade;

struct td_wslink {
	struct td_loop *l;
	struct td_wslink_cb cb;
	void *ctx;
	enum wslink_state state;
	struct td_conn *conn;
	struct tnl_ws *ws;
	struct wslink_upgrade *up;  /* until open */
	struct tnl_ws_event *given; /* that message() is about */
	struct td_timer timer;
	struct td_timer linger;	 /* armed: what is queued waits for more */
	size_t limit;		 /* of what may wait in the link */
	uint64_t written;	 /* to the connection, ever */
	uint64_t pongs_until;	 /* of `written`: once the kernel has that, `pongs` are counted anew */
	size_t pongs;		 /* bytes */
	struct td_soon flush;	 /* what was sent in this turn goes to the connection */
	struct td_soon pump;	 /* messages that are already here cause no event */
	struct td_soon tell_end; /* closed() */
	bool paused, high, delivered;
	bool returns;		    /* the connection, to HTTP: agreed upon */
	struct td_http_lease lease; /* then, when it was dialed */
	uint16_t close_code;	    /* ours */
	/* how it ended */
	int err, http_status;
	uint16_t code;
	char *why;
};

struct td_wslink *td_wslink_new(struct td_loop *l, const struct td_wslink_cb *cb, void *ctx);
int td_wslink_begin(struct td_wslink *w, bool server, const struct wslink_limits *o, const void *early, size_t n);
void td_wslink_end(struct td_wslink *w, int err, uint16_t code, int http_status, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));
void td_wslink_write_out(struct td_wslink *w);
void td_wslink_arm(struct td_wslink *w);
void td_wslink_pump(struct td_wslink *w);

/* What shows that nobody between the two ends has a TLS connection of his own: hex. false: there is no TLS. */
#define WSLINK_RETURN_HEADER "Tunneld-Return"
#define WSLINK_PROOF (2 * 32 + 1)
bool td_wslink_return_proof(struct td_conn *c, char out[WSLINK_PROOF]);
void td_wslink_lease(struct td_wslink *w, struct td_http_kept *k, const char *place);

void td_wslink_upgrade_timeout(struct td_wslink *w);
void td_wslink_upgrade_free(struct td_wslink *w);

#endif
