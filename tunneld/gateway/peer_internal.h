/* Inside of the gateway: links between nodes (peer.c), and the connections that go over them (ferry.c).
 *
 *   client ─► node that it came to ═ trunk, one for each pair of nodes ═► node that has its session
 *             ferry: its connection, TLS taken off                       ferry: a pair of sockets ─► HTTP server
 *
 * A ferry carries bytes from the request on and looks at none; a PROXY header before them says who the client is.  What
 * came by a ferry is never handed on again. */
#ifndef TD_GATEWAY_PEER_INTERNAL_H
#define TD_GATEWAY_PEER_INTERNAL_H
#include "lib/trunk.h"
#include "tunneld/gateway/shared_internal.h"

#define GW_PEERS_MAX 64u	     /* nodes */
#define GW_FERRIES_MAX 16384u	     /* of one trunk */
#define GW_FERRIES_PER_CLIENT 16u    /* times per_peer_connections, of one address at the node that it came to */
#define GW_STRANGERS_MAX 32u	     /* connections of which it is not known yet which node they are */
#define GW_PEER_NOP_NS (10 * TD_SEC) /* between signs of life */
#define GW_PEER_LOST_NS (30 * TD_SEC)
#define GW_PEER_TROUBLES 8u
#define GW_PEER_SAY_NS (60 * TD_SEC) /* between two lines about the same trouble with a node */

struct gw_trunk {		    /* one connection to another node */
	struct tnl_list node;	    /* in the peers' strangers until it has greeted, as one that the store knows */
	char name[TD_NODE_MAX + 1]; /* that it says, while that is not so; else "" */
	struct gw_peers *peers;
	struct gw_peer *peer; /* whose it is; NULL: not known yet */
	struct td_conn *conn;
	struct tnl_trunk *t; /* NULL: TLS is not done */
	bool dialed, ready;
	uint64_t heard; /* monotonic */
	struct td_timer timer;
	struct td_soon pump;
	uint64_t to, from; /* bytes of streams, both ways */
};

struct gw_trouble { /* what was said last of links that could not be made */
	char key[200];
	uint64_t at; /* monotonic; 0: nothing, or it is over */
};

struct gw_peer { /* another node, as the store has it */
	char name[TD_NODE_MAX + 1], host[256];
	uint16_t port;
	struct gw_peers *peers;
	struct gw_trunk *link; /* that is in use; NULL: none */
	struct gw_trunk *dial; /* that is being made */
	bool known;	       /* in the list that is being read */
	struct td_backoff backoff;
	struct td_timer again;
	uint64_t up_since;
	struct gw_trouble trouble;
};

struct gw_peers {
	struct td_gateway *g;
	char name[TD_NODE_MAX + 1];
	struct td_listener *listener;
	struct tnl_tls_ctx *server, *client;
	struct gw_peer *v[GW_PEERS_MAX];
	unsigned n;
	struct tnl_list strangers; /* the oldest first */
	unsigned nstrangers;
	struct gw_trouble trouble[GW_PEER_TROUBLES]; /* with them */
	struct td_peers *clients;		     /* whose connections go to other nodes */
	struct tnl_list ferries, away;		     /* away: handed on from here, and not dismissed */
	uint64_t last_number;			     /* of a connection that was taken in */
	struct td_timer learn;			     /* who is there, from the store */
	uint64_t handed_on, taken_in, refused;
};

/* --- peer.c ------------------------------------------------------------------------ */
/* Listens on peer_listen. NULL and why "": it is not configured. */
struct gw_peers *gw_peers_new(struct td_gateway *g, char *why, size_t cap);
void gw_peers_free(struct gw_peers *p);
int gw_peers_reload(struct gw_peers *p, const struct td_gateway_config *c, char *why, size_t cap); /* certificates */
/* The other nodes: all that are there, one after the other, between begin and end. */
void gw_peers_begin(struct gw_peers *p);
void gw_peers_add(struct gw_peers *p, const char *name, const char *address);
void gw_peers_end(struct gw_peers *p);
struct gw_trunk *gw_peers_link(struct gw_peers *p, const char *name); /* NULL: there is none now */
void gw_trunk_pump(struct gw_trunk *k);				      /* soon */
void gw_peers_status(const struct gw_peers *p, struct tnl_jw *w);

/* --- ferry.c ------------------------------------------------------------------------ */
/* The request's connection goes to that node from here on; false: it cannot, and the request is the caller's still. */
bool gw_ferry_send(struct gw_peers *p, struct td_request *r, const char *node);
void gw_ferry_opened(struct gw_trunk *k, struct tnl_trunk_stream *st); /* by the other node */
void gw_ferry_data(struct tnl_trunk_stream *st, const uint8_t *p, size_t n);
void gw_ferry_ended(struct tnl_trunk_stream *st);
void gw_ferry_fill(struct tnl_trunk_stream *st);      /* its turn */
void gw_ferry_dismissed(struct tnl_trunk_stream *st); /* the other node goes: the link that it carries is to end */
/* We go: the nodes that have the sessions close their links, one after the other.  Of those that were handed on from
 * here: how many are there, and how many have not been told; tell the oldest of these (false: there is none). */
size_t gw_ferries_away(const struct gw_peers *p, size_t *untold);
bool gw_ferries_dismiss(struct gw_peers *p);
void gw_ferries_cut(struct gw_peers *p); /* all, at once */
/* Cuts those from other nodes that their clients have not read for so long, until so much is freed; how much is. */
uint64_t gw_ferries_make_room(struct gw_peers *p, uint64_t want, uint64_t unread_ns);
void gw_ferry_abort(struct tnl_trunk_stream *st); /* the trunk is over */

/* --- route.c ------------------------------------------------------------------------- */
/* An upgrade of a data channel: true when its session is at another node, which has it from here on. */
bool gw_route_away(struct td_gateway *g, struct td_request *r, const char *id);

#endif
