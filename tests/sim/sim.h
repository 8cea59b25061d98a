/* Simulator: two sessions, a virtual clock and a network that misbehaves by seed. */
#ifndef SIM_H
#define SIM_H
#include "lib/list.h"
#include "lib/session.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MS UINT64_C(1000000)
#define SEC UINT64_C(1000000000)
#define NEVER UINT64_MAX
#define MAX_STREAMS 24
#define MAX_LINKS 4u

/* --- random numbers ------------------------------------------------------------ */
struct rng {
	uint64_t x;
};
uint64_t rng_next(struct rng *r);
uint64_t rng_below(struct rng *r, uint64_t n); /* 0 … n-1 */
bool rng_chance(struct rng *r, unsigned permille);
uint64_t rng_between(struct rng *r, uint64_t a, uint64_t b);
uint64_t rng_log(struct rng *r, uint64_t a, uint64_t b); /* evenly by order of magnitude */

/* --- what happens, decided by the seed -------------------------------------------- */
enum sim_mode { SIM_OWN, SIM_STOCK, SIM_SINGLE, SIM_SINGLE_STOCK, SIM_BASIC, SIM_MODES };
/* One link of several: its own path, and the times in which nothing moves on it in either direction. */
struct link_plan {
	uint64_t delay, rate;
	unsigned rank;
	unsigned lossy; /* permille of messages that are lost on it, beside plan.drop */
	int nstalls;
	struct {
		uint64_t from, to;
	} stall[3];
};
struct plan {
	unsigned links;
	struct link_plan link[MAX_LINKS];
	bool reverse; /* some streams are opened by the agent, for a listener that the client asks for */
	bool only;    /* link 1 is a direct one, and link 0 carries nothing but the handshake */
	enum sim_mode mode;
	bool encrypted;
	size_t memory_max, window, max_payload;
	unsigned drop, dup, reorder, corrupt; /* permille */
	uint64_t delay, jitter, rate;	      /* ns, ns, bytes/s */
	unsigned message_rate;
	int nstreams, cuts, pauses;
	uint64_t busy_until; /* faults and stalls happen before */
	bool end_by_abort;
};

/* One stream, both ends. */
struct way { /* one direction */
	uint64_t total, sent, received;
	size_t write_max;
	uint64_t pause_every, pause_ns; /* a writer that trickles */
	uint64_t next_write;
	bool eof;
};
struct side {
	struct tnl_stream *st;
	bool opened, gone, shut, saw_reset, saw_eof, stalled, dial_failed;
	uint32_t take_id;  /* opener: the id it got */
	size_t take_max;   /* bytes that on_data takes in one call; 0 while stalled */
	uint64_t reset_at; /* bytes received at which it resets the stream; NEVER: not */
};
struct flow {
	int index, opener; /* the node that opens it */
	uint64_t open_at, dial_ns;
	bool broken; /* somebody resets it: need not arrive whole */
	struct side side[2];
	struct way way[2]; /* [0] client → agent */
};

struct node { /* one end */
	struct world *w;
	int which; /* 0 client, 1 agent */
	struct tnl_session *s;
	bool ready, closed;
	bool moved;		       /* plan.only: to link 1, for good */
	unsigned up;		       /* bit mask of links */
	int close_err, opened;	       /* streams of the other end seen */
	int words;		       /* about listeners that came */
	unsigned epoch[MAX_LINKS];     /* of its links: what was under way to an older one is lost */
	uint64_t link_free[MAX_LINKS]; /* when a rate-limited link has sent what it took */
};

enum ev_kind { EV_MESSAGE, EV_CUT, EV_UP, EV_PAUSE, EV_OPEN, EV_DIALED, EV_STALL, EV_WRITE, EV_WAKE };
struct event {
	uint64_t at, order;
	enum ev_kind kind;
	int to, arg;
	unsigned link, epoch;
	size_t n;
	uint8_t *data;
};

struct world {
	struct rng rng;	    /* the plan and the network */
	struct rng links;   /* what concerns several links: seeds with one stay what they are */
	struct rng reverse; /* the same for streams that the agent opens */
	struct plan plan;
	uint64_t seed, now, order;
	int verbose;
	struct event *heap;
	size_t nheap, cap_heap;
	struct node node[2];
	struct flow flow[MAX_STREAMS];
	uint64_t messages, steps, lost, resumes, striped, stalls;
	size_t most_memory[2];
	char fail[256];
};

/* world.c */
bool world_run(uint64_t seed, int verbose, struct world *out_stats); /* false: failed, reason printed */
void world_fail(struct world *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void say(struct world *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* net.c */
void net_push(struct world *w, const struct event *e);
bool net_pop(struct world *w, struct event *e);
uint64_t net_next(const struct world *w);
void net_fini(struct world *w);
bool net_room(const struct world *w, int from, unsigned link);
void net_send(struct world *w, int from, unsigned link, const uint8_t *p, size_t n);
/* plan.c */
void plan_make(struct world *w);
void plan_links(struct world *w);
void plan_reverse(struct world *w);
uint8_t pattern(const struct world *w, const struct flow *f, int dir, uint64_t off);
const char *mode_name(enum sim_mode m);
/* node.c */
void node_start(struct world *w, int which);
void node_pump(struct node *n);
void node_open(struct node *n, struct flow *f);
/* soak.c */
bool soak_run(uint64_t seed, uint64_t ns, int verbose);

/* --- three nodes and their store (split.c) -------------------------------------------- */
struct split_stats {
	uint64_t takes, moves, forgets, bytes;
};
bool split_run(uint64_t seed, int verbose, struct split_stats *st);

#endif
