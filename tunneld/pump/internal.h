/* Shared by pump.c and pipe.c only. */
#ifndef TD_PUMP_INTERNAL_H
#define TD_PUMP_INTERNAL_H
#include "lib/list.h"
#include "tunneld/base/memory.h"
#include "tunneld/pump/pump.h"

struct td_pump {
	struct td_loop *loop;
	struct tnl_session *session;
	const struct td_pump_cb *cb;
	void *ctx;
	struct td_wslink *link;
	struct td_timer timer;
	struct tnl_list pipes;	   /* td_pipe.node */
	struct tnl_list unsettled; /* td_pipe.unsettled: something ended, look at it after the session returned */
	struct tnl_list events;	   /* what the session reported, told to the owner after it returned */
	size_t npipes;
	size_t memory_told; /* what td_memory knows of this session */
	unsigned fed, sent; /* messages of the run that is going on */
	size_t fed_bytes;
	bool sent_ack; /* the last one was an ack */
	int depth;     /* > 0: inside the session or a callback */
	struct td_memory_waiter room;
	bool kicked, dead;
	bool link_lost;
	int lost_err;
	uint16_t lost_code;
	char lost_why[160];
};

struct td_pipe {
	struct tnl_list node, unsettled;
	struct td_pump *pump;
	struct tnl_stream *st;	   /* NULL once the stream is over (lingering) */
	int in_fd, out_fd, err_fd; /* err_fd: where StdErr goes; -1: to out_fd */
	int src2_fd;		   /* second source, goes out as StdErr; -1 none */
	bool own_fds, socket;
	bool blocking; /* in_fd is not O_NONBLOCK and not ours to change: ask before each read */
	bool end_sink;
	int sink_flags; /* td_pipe_end_sink */
	const char *at_eof;
	ev_io rd, wr, rd2;	  /* wr watches the sink of what is kept */
	bool rd_ready, rd2_ready; /* a source has something (its watcher rests meanwhile) */
	bool turn2;		  /* whose turn it is when both have */
	bool rd_eof, rd2_eof;	  /* local source has ended */
	bool wr_shut;		  /* local sink has been shut */
	bool peer_eof, peer_full; /* peer ended its direction / both */
	bool drained_told;
	bool dying;
	uint32_t reason; /* to be finished from the pump */
	bool lingering;
	struct td_timer linger;
	uint64_t in, out;
	void *user;
};

#define TD_PIPE_ORDERLY UINT32_MAX

size_t td_pipe_deliver(struct td_pipe *p, uint32_t ptype, const uint8_t *b, size_t n);
void td_pipe_peer_eof(struct td_pipe *p, bool half_closed);
void td_pipe_peer_reset(struct td_pipe *p, uint32_t reason);
/* One read of the local source into the session. true: something moved. */
bool td_pipe_feed_session(struct td_pipe *p);
/* Ends what is over; the pipe may be gone afterwards. */
void td_pipe_settle(struct td_pipe *p);
void td_pipe_destroy(struct td_pipe *p, bool rst);
void td_pump_run(struct td_pump *p);
/* Nothing is told of st any more. true: its cancellation was waiting to be told. */
bool td_pump_forget_(struct td_pump *p, const struct tnl_stream *st);

#endif
