/* Inside of the pump: pump.c (the run of a session), link.c (its links), direct.c (the direct one of them), events.c
 * (what the session reports), pipe.c and pipe_source.c (streams and local descriptors), pace.c (how fast they may),
 * flow.c (datagrams). */
#ifndef TD_PUMP_INTERNAL_H
#define TD_PUMP_INTERNAL_H
#include "lib/dgram.h"
#include "lib/list.h"
#include "lib/pace.h"
#include "tunneld/base/memory.h"
#include "tunneld/pump/pump.h"

#define TD_PUMP_RELAY 0u		   /* the gateway's main link; its further ones follow */
#define TD_PUMP_DIRECT (TNL_LINKS_MAX - 1) /* the direct one; it goes before the gateway's */

struct td_pump_link {
	struct td_pump *p;
	struct td_wslink *w; /* NULL: not there */
	bool lost;	     /* a further one through the gateway: the owner is to hear of it */
};

struct td_pump_direct {
	bool allow, held_over; /* by the gateway; the session has moved for good (TNL_DIRECT_ONLY) */
	uint64_t grace_ns;
	struct td_timer grace, report;
	struct td_pump_direct_stats st;
	bool told_up; /* to the gateway, as the next two */
	uint64_t told_sent, told_received;
	struct {
		bool told_soon;
		int err;
		char why[160];
	} lost;
};

struct td_pump {
	struct td_loop *loop;
	struct tnl_session *session;
	const struct td_pump_cb *cb;
	void *ctx;
	struct td_pump_link links[TNL_LINKS_MAX];
	struct td_pump_direct direct;
	struct td_timer timer;
	struct tnl_list pipes;	   /* td_pipe.node */
	struct tnl_list unsettled; /* td_pipe.unsettled: something ended, look at it after the session returned */
	struct tnl_list events;	   /* what the session reported, told to the owner after it returned */
	size_t npipes;
	size_t flow_parts;  /* bytes of datagrams that have come in part */
	size_t memory_told; /* what td_memory knows of this session */
	unsigned fed, sent; /* messages of the run that is going on */
	size_t fed_bytes;
	bool sent_ack;	  /* the last one was an ack */
	unsigned sent_on; /* and went there */
	struct {
		uint64_t since, sent, fed; /* bytes of messages */
		unsigned spans;		   /* in a row with enough bytes */
		unsigned busy;		   /* streams, when it was told last */
		enum td_bulk kind;
		bool full; /* in this run of bulk the path of what is sent was */
		bool told_soon;
	} bulk;
	int depth; /* > 0: inside the session or a callback */
	struct td_memory_waiter room;
	struct td_soon kick;
	bool dead;
	struct {
		bool told_soon; /* the owner is to hear of it */
		int err;
		uint16_t code;
		char why[160];
	} lost;
};

/* Where bytes of a pipe come from. */
struct td_pipe_source {
	struct td_pipe *p;
	int fd;		/* -1: none */
	uint32_t ptype; /* what its bytes go out as */
	ev_io io;
	bool ready; /* it has something; the watcher rests meanwhile */
	bool eof;
};

struct td_pipe {
	struct tnl_list node, unsettled;
	struct td_pump *pump;
	struct tnl_stream *st; /* NULL once the stream is over (lingering) */
	bool own_fds, socket;
	enum tnl_stream_kind kind;
	/* local → stream */
	struct td_pipe_source src[2]; /* output; errors of a command without a terminal */
	uint8_t *lead;		      /* td_pipe_lead: what of it has not gone yet */
	size_t lead_len, lead_at;
	struct td_timer lead_again;
	int turn;	    /* whose it is when both have something */
	bool blocking;	    /* the first is not O_NONBLOCK and not ours to change: ask before each read */
	const char *at_eof; /* td_pipe_at_eof */
	bool drained_told;
	bool connected; /* the far end says so (td_pipe_ask), and the owner is to hear of it */
	/* stream → local */
	int out_fd, err_fd; /* err_fd: where StdErr goes; -1: to out_fd */
	ev_io wr;	    /* of the sink of what the stream keeps */
	bool wr_shut;	    /* out_fd has been shut */
	bool end_sink;	    /* td_pipe_end_sink */
	int sink_flags;
	int sink_errno;		  /* a write failed with it; 0: none */
	bool peer_eof, peer_full; /* the peer ended its direction; both */
	struct td_flow *flow;	  /* datagrams in place of descriptors; NULL: none */
	struct td_pace *pace;	  /* NULL: as fast as it goes */
	struct tnl_pace_turn paced[2];
	/* the end */
	bool dying; /* for `reason`, from the pump */
	uint32_t reason;
	bool by_peer;		   /* it was the other end that aborted */
	char *words;		   /* its reason in words; NULL: none */
	td_pipe_answer_fn *answer; /* NULL: it has been given, or none is wanted */
	bool refused;		   /* it was one, and the local program reads it */
	bool lingering;		   /* what the local program still sends is thrown away */
	struct td_timer linger;
	uint64_t in, out; /* bytes moved */
	uint64_t counted; /* of those, when the streams that are busy were counted last */
	void *user;
};

/* events.c */
extern const struct tnl_session_cb td_pump_session_cb;
void td_pump_tell_events(struct td_pump *p); /* to the owner; the pump may be dead after it */
void td_pump_drop_events(struct td_pump *p);
bool td_pump_size_untold(const struct td_pump *p); /* a change of the window's size waits to be told */
/* Nothing is told of st any more. true: its cancellation was waiting to be told. */
bool td_pump_forget(struct td_pump *p, const struct tnl_stream *st);

void td_pump_note_word(struct td_pump *p, const struct tnl_direct *d);

/* pump.c */
void td_pump_run(struct td_pump *p);

/* link.c */
void td_pump_links_init(struct td_pump *p);
void td_pump_links_fini(struct td_pump *p);
bool td_pump_is_ack(const uint8_t *b, size_t n);
/* Takes w as the link of that number, with the callbacks of the session. */
bool td_pump_link_set(struct td_pump *p, unsigned link, struct td_wslink *w);
void td_pump_link_drop(struct td_pump *p, unsigned link); /* frees it; the session hears of it */

/* direct.c */
void td_pump_direct_init(struct td_pump *p);
void td_pump_direct_fini(struct td_pump *p);
bool td_pump_is_word(const uint8_t *b, size_t n);
void td_pump_take_word(struct td_pump *p, const uint8_t *b, size_t n);
void td_pump_relay_came(struct td_pump *p);
void td_pump_relay_went(struct td_pump *p);
void td_pump_lose_direct(struct td_pump *p, int err, const char *why);

/* pipe.c */
size_t td_pipe_deliver(struct td_pipe *p, uint32_t ptype, const uint8_t *b, size_t n);
void td_pipe_peer_reset(struct td_pipe *p, uint32_t reason, const char *words);
void td_pipe_peer_eof(struct td_pipe *p, bool half_closed);
void td_pipe_peer_connected(struct td_pipe *p);
void td_pipe_unsettle(struct td_pipe *p); /* look at it after the session has returned */
void td_pipe_settle(struct td_pipe *p);	  /* ends what is over; the pipe may be gone afterwards */
void td_pipe_destroy(struct td_pipe *p, bool rst);

void td_pipe_drain(struct td_pipe *p); /* writes what the stream kept */

/* flow.c */
bool td_flow_feed(struct td_pipe *p); /* as td_pipe_feed_session */
void td_flow_join(struct td_flow *f, struct td_pipe *p);
void td_flow_drain(struct td_pipe *p); /* its turn has come to bring datagrams to its owner */
size_t td_flow_deliver(struct td_pipe *p, const uint8_t *b, size_t n);

/* pace.c: each of a pipe's directions, with one that has no pace among them */
enum td_pace_way { TD_PACE_OUT, TD_PACE_IN };
size_t td_pipe_may(struct td_pipe *p, enum td_pace_way way); /* bytes; 0: it is called again when it may */
void td_pipe_moved(struct td_pipe *p, enum td_pace_way way, size_t n);
void td_pipe_rests(struct td_pipe *p, enum td_pace_way way);
bool td_pipe_waits(const struct td_pipe *p, enum td_pace_way way);

/* pipe_source.c */
void td_pipe_source_init(struct td_pipe_source *s, struct td_pipe *p, int fd, uint32_t ptype);
void td_pipe_source_watch(struct td_pipe_source *s);
void td_pipe_source_stop(struct td_pipe_source *s);
void td_pipe_lead_again(void *pipe); /* there was no room for it */
bool td_pipe_sources_over(const struct td_pipe *p);
bool td_pipe_local_end(const struct td_pipe *p); /* the local program has not hung up */
/* One read of a local source into the session. true: something moved. */
bool td_pipe_feed_session(struct td_pipe *p);

#endif
