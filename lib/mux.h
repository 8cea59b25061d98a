/* smux over the Output payloads of a Port session: parser, control frames and
 * the turn-taking of streams (docs/protocol.md "Port sessions").
 *
 * Turns: deficit round robin by bytes with a list of new streams before the old
 * ones (as fq_codel, RFC 8290 §4), so that a stream that sends little now and
 * then does not wait behind bulk. */
#ifndef TNL_MUX_H
#define TNL_MUX_H
#include "lib/channel.h"
#include "lib/list.h"
#include "lib/map.h"
#include "lib/smux.h"
#include <stdbool.h>
#include <stdint.h>

#define TNL_MUX_QUANTUM 16384
#define TNL_MUX_FIRST_WINDOW 16384u /* what either own end assumes before the first UPD */

struct tnl_stream;
struct tnl_session;

struct tnl_mux {
	int version;
	struct tnl_list streams;	       /* by tnl_stream.all; freed ones stay until they are reaped */
	struct tnl_list new_q, old_q, zombies; /* by tnl_stream.sched */
	struct tnl_list ctl;		       /* by tnl_stream.ctl: control frames due */
	struct tnl_list timed;		       /* by tnl_stream.timed */
	struct tnl_map *by_id;
	size_t nstreams; /* zombies not counted */
	uint32_t next_id;
	bool nop_due;
	bool work_due;		   /* some stream has push_due or eof_due */
	uint64_t timer_at;	   /* not later than any stream's timer */
	uint64_t granted;	   /* windows given to the peer, all streams */
	unsigned connect_errors;   /* Flag 3 seen whose FIN has not come */
	struct tnl_stream *single; /* BASIC, SINGLE, SHELL, COMMAND: the one stream */
	bool had_single;
	/* parser */
	uint8_t head[TNL_SMUX_HDR + 8];
	unsigned have, need;
	struct tnl_smux_frame cur;
	uint32_t left; /* PSH bytes still to come */
};

int tnl_mux_init(struct tnl_mux *m) TNL_MUST_USE;
void tnl_mux_fini(struct tnl_mux *m);

/* mux_in.c */
int tnl_mux_feed(struct tnl_session *s, const uint8_t *p, size_t n, uint64_t now) TNL_MUST_USE;

/* mux.c */
struct tnl_stream *tnl_mux_find(const struct tnl_mux *m, uint32_t id); /* NULL also for a freed one */
bool tnl_mux_sendable(const struct tnl_stream *st);
size_t tnl_mux_window(const struct tnl_stream *st); /* bytes that the peer will take now */
void tnl_mux_activate(struct tnl_stream *st);	    /* into the turn lists, if it wants and may */
void tnl_mux_deactivate(struct tnl_stream *st);
struct tnl_stream *tnl_mux_next(struct tnl_mux *m);
void tnl_mux_charge(struct tnl_stream *st, size_t n);
bool tnl_mux_flush(struct tnl_session *s, uint64_t now); /* false: the channel is full */
void tnl_mux_grant(struct tnl_stream *st);		 /* after consuming: UPD when worth it */
void tnl_mux_first_grant(struct tnl_stream *st);

#endif
