/* Joins a session to its link and its streams to their local descriptors, for the
 * forwarder and the agent alike.
 *
 *   outward: while the link has room: session pull → link; when that is empty and
 *            the session may send: next stream → reserve → read(2) → commit.
 *   inward:  link message → session feed → on_data → write(2); rest kept, write watcher.
 *   after every event: pump, then re-arm one timer with the session's deadline.
 *
 * The stream's user pointer belongs to the pump: NULL until a pipe is made. */
#ifndef TD_PUMP_H
#define TD_PUMP_H
#include "lib/direct.h"
#include "lib/session.h"
#include "tunneld/net/wslink.h"

struct td_pump;
struct td_pace; /* so many bytes a second, for the pipes that share it */
struct td_pipe; /* local descriptor(s) joined to one stream; owns both */

#define TD_PIPE_ORDERLY UINT32_MAX /* reason of an end that is none of enum tnl_reset */

#define TD_BULK_FEW 4u /* streams; of more that have bulk is told sooner */

/* What would make bulk faster. */
enum td_bulk {
	TD_BULK_FULL,  /* nothing: the path of what is sent is full */
	TD_BULK_PLAIN, /* not known, always so of what is received */
	TD_BULK_LOSSY  /* more links: TCP repairs losses on the way of what is sent */
};

/* Callbacks run from the loop, never from inside a td_pump_* or td_pipe_* call,
 * and may call anything here, td_pump_free included. Unused ones may be NULL. */
struct td_pump_cb {
	void (*ready)(void *ctx, const struct tnl_session_info *info);
	/* Agent, and the client where Reverse is agreed: dial for st, then td_pipe_agent or td_pump_refuse.
	 * If `cancelled` comes first, forget st at once (the pump frees it). */
	void (*open)(void *ctx, struct tnl_stream *st);
	void (*cancelled)(void *ctx, struct tnl_stream *st);
	/* A word about listeners at the agent (lib/reverse.h). */
	void (*reverse)(void *ctx, const struct tnl_reverse *word);
	void (*flag)(void *ctx, uint32_t flag);
	void (*size)(void *ctx, unsigned cols, unsigned rows);
	void (*exit_code)(void *ctx, int code);
	void (*publication)(void *ctx, bool started);
	/* Answer through tnl_session_kms_result, then td_pump_kick. */
	void (*kms)(void *ctx, const struct tnl_kms_request *r);
	/* The session is over; free the pump. Pipes have been reset or finished before. Text is raw from the peer. */
	void (*closed)(void *ctx, int err, const char *text);
	/* The pipe's local source(s) have ended and all that came from them has been handed to the session. */
	void (*drained)(void *ctx, struct td_pipe *p, void *user);
	/* Client, after td_pipe_ask: the connection at the far end stands. */
	void (*connected)(void *ctx, struct td_pipe *p, void *user);
	/* reason TD_PIPE_ORDERLY: orderly end. The pipe is gone after the call. */
	void (*pipe_closed)(void *ctx, struct td_pipe *p, void *user, uint32_t reason, uint64_t in, uint64_t out);
	/* Bulk has gone on for half a second, either way; again every half second while it goes on. Sooner where it
	 * meets losses or more than a few streams have it, at once where it fills the path. */
	void (*bulk)(void *ctx, enum td_bulk kind); /* td_pump_busy tells how many streams have it */
	/* A further link broke and was freed; the session goes on with the others. */
	void (*link_lost)(void *ctx, unsigned index);
	/* The attached link broke and was freed: make a new one, attach it. Nothing stops while td_pump_links is not 0.
	 */
	void (*lost)(void *ctx, int err, uint16_t code, const char *why);
	/* A word about the direct link has come over the gateway's; what a policy says the pump does itself. */
	void (*direct_word)(void *ctx, const struct tnl_direct *d);
	/* It broke, or had to go, and was freed: a new one takes a new ticket. */
	void (*direct_lost)(void *ctx, int err, const char *why);
};

/* sc->cb, ctx and wall_ms are filled in here. NULL: no memory. */
struct td_pump *td_pump_new(struct td_loop *l, struct tnl_session_config *sc, const struct td_pump_cb *cb, void *ctx);
/* Pipes still there are closed with RST, their pipe_closed is not called. */
void td_pump_free(struct td_pump *p);
struct tnl_session *td_pump_session(struct td_pump *p);
/* An opened link on which the token frame was sent: taken over (its callbacks too); an older one is freed. */
void td_pump_attach(struct td_pump *p, struct td_wslink *w);
void td_pump_detach(struct td_pump *p); /* frees the link politely; no lost() */
struct td_wslink *td_pump_link(struct td_pump *p);
/* Further links through the gateway, 1 … info.links - 1, in the same way: taken over; an older one of that number is
 * freed. */
#define TD_PUMP_LINKS (TNL_LINKS_MAX - 1)
void td_pump_attach_link(struct td_pump *p, unsigned index, struct td_wslink *w);
void td_pump_detach_link(struct td_pump *p, unsigned index); /* no link_lost() */
struct td_wslink *td_pump_link_at(struct td_pump *p, unsigned index);
unsigned td_pump_links(const struct td_pump *p); /* how many are there, the main one included, the direct one not */
unsigned td_pump_busy(const struct td_pump *p);	 /* streams that had a part in the bulk that was told of last */
void td_pump_ping(struct td_pump *p);		 /* on each of them, after a sleep */
/* --- the direct link (lib/direct.h), beside the one above, which goes through the gateway ---
 * While it stands everything goes over it, and the gateway's link is quiet: the channel moves, with its numbers and
 * windows, and moves back when it breaks.  The pump keeps to the gateway's policy, tells it what goes over the direct
 * link, and drops that when the gateway was out of reach for longer than it permits. */
void td_pump_attach_direct(struct td_pump *p, struct td_wslink *w); /* taken over as in td_pump_attach */
void td_pump_detach_direct(struct td_pump *p);			    /* no direct_lost() */
struct td_wslink *td_pump_direct(struct td_pump *p);
bool td_pump_direct_allowed(const struct td_pump *p);
/* false: the gateway's link is not there, or is full. */
bool td_pump_tell_direct(struct td_pump *p, const struct tnl_direct *d);
struct td_pump_direct_stats {
	uint64_t links, sent, received; /* how many there were; bytes over all of them */
};
void td_pump_direct_stats(const struct td_pump *p, struct td_pump_direct_stats *st);
struct tnl_jw;
void td_pump_put_direct(const struct td_pump *p, struct tnl_jw *w); /* for a status; p NULL: no session yet */

void td_pump_kick(struct td_pump *p); /* run it soon; after any direct use of the session */
size_t td_pump_pipes(const struct td_pump *p);
/* Has the local program of any pipe not hung up yet?  Asked of the sockets: nothing is read while the link is away. */
bool td_pump_has_local_end(const struct td_pump *p);
/* Grows with each message that the other end has acknowledged or that came from it in order: two values tell whether a
 * link was of use. */
uint64_t td_pump_progress(const struct td_pump *p);
void td_pump_tell_reverse(struct td_pump *p, const struct tnl_reverse *word);
/* No connection for a stream from open(): resets and frees it. */
void td_pump_refuse(struct td_pump *p, struct tnl_stream *st, uint32_t reason, const char *words);

/* Client: opens a stream for an accepted socket. Takes fd on success; NULL and *err (TNL_EBUSY, …) otherwise. */
struct td_pipe *td_pipe_client(struct td_pump *p, int fd, void *user, int *err);
/* Right after td_pipe_client: what its stream is for (lib/session.h).  false: the far end does not know of that, it is
 * a plain connection, and `connected` never comes. */
bool td_pipe_ask(struct td_pipe *p, enum tnl_stream_kind kind);
/* The same with a destination, which each stream has where Dial is agreed (lib/session.h), or NULL.  answer: what the
 * local program is told once, when it is connected (TD_PIPE_ORDERLY; without a destination at once) or when it cannot
 * be; then its socket is closed in order, and not reset.  It fills `out`, gives how many bytes, and calls nothing of
 * the pump. words: the far end's about the reason, or "". NULL: no answer. */
typedef size_t td_pipe_answer_fn(void *user, uint32_t reason, const char *words, uint8_t *out, size_t cap);
struct td_pipe *td_pipe_client_to(struct td_pump *p, int fd, const struct tnl_head *to, td_pipe_answer_fn *answer,
				  void *user, int *err);
/* Agent: the dialed socket, pty or pipe for a stream from open(). Takes fd. NULL: no memory (st is untouched). */
struct td_pipe *td_pipe_agent(struct td_pump *p, struct tnl_stream *st, int fd, void *user);
/* The same with a source and a sink of its own (equal for a pty). Takes both. */
struct td_pipe *td_pipe_agent_pair(struct td_pump *p, struct tnl_stream *st, int in_fd, int out_fd, void *user);
/* Agent: opens a stream for a socket that a listener of the client's has accepted. As td_pipe_client. */
struct td_pipe *td_pipe_reverse(struct td_pump *p, int fd, uint16_t listener, const char *from, void *user, int *err);
/* Client on descriptors that stay the caller's (stdin and stdout of connect and shell). err_fd -1: StdErr goes to
 * out_fd. */
struct td_pipe *td_pipe_fds(struct td_pump *p, int in_fd, int out_fd, int err_fd, void *user, int *err);
struct td_pipe *td_pipe_fds_to(struct td_pump *p, int in_fd, int out_fd, const struct tnl_head *to, void *user,
			       int *err);
/* Agent: a second source whose bytes go out as StdErr. Takes fd. */
void td_pipe_add_stderr(struct td_pipe *p, int fd);
/* Bytes that go before all that the local source sends (copied; once, as soon as there is a pipe). TNL_ENOMEM. They are
 * not counted as moved. */
int td_pipe_lead(struct td_pipe *p, const uint8_t *bytes, size_t n) TNL_MUST_USE;
/* Each direction takes part in that many bytes a second (of the local end's); the pace outlives the pipe. */
struct td_pace *td_pace_new(struct td_loop *l, uint64_t bytes_per_second); /* NULL: no memory */
void td_pace_free(struct td_pace *pace);
void td_pipe_pace(struct td_pipe *p, struct td_pace *pace);
/* --- flows of datagrams: pipes without descriptors, where Udp is agreed (lib/session.h) ---
 * Its owner reads and writes the sockets.  What it sends waits in the flow for the session and its link, before there
 * is a pipe, too; when that is more than `queue` bytes the oldest go. */
struct td_flow;
/* A datagram of the far end: write it, or drop it.  From inside the session: it calls nothing of the pump. */
typedef void td_flow_fn(void *user, const uint8_t *p, size_t n);
struct td_flow *td_flow_new(size_t queue, td_flow_fn *deliver, void *user); /* NULL: no memory */
void td_flow_free(struct td_flow *f);					    /* only one without a pipe */
void td_flow_send(struct td_flow *f, const uint8_t *p, size_t n);
uint64_t td_flow_dropped(const struct td_flow *f); /* datagrams that found no room, in either direction */
/* Takes f. NULL: not, and *err; at the agent no memory. */
struct td_pipe *td_pipe_flow(struct td_pump *p, struct td_flow *f, void *user, int *err);
struct td_pipe *td_pipe_agent_flow(struct td_pump *p, struct tnl_stream *st, struct td_flow *f, void *user);
void td_pipe_end_flow(struct td_pipe *p); /* in order; what still waits in it is dropped */
/* Bytes that are sent when the local source has ended (a terminal's end-of-file character). Borrowed. */
void td_pipe_at_eof(struct td_pipe *p, const char *bytes);
/* td_pipe_fds, and pairs: when the peer has ended its direction the sink is ended as well, so that whoever reads it
 * sees that: a socket is shut down, anything else gives way to /dev/null after its status flags were set to `flags`
 * (-1: not). */
void td_pipe_end_sink(struct td_pipe *p, int flags);
/* errno of the local write that failed, of either sink; 0: none did. A reader of errors that has gone is no failure. */
int td_pipe_sink_errno(const struct td_pipe *p);
enum tnl_stream_kind td_pipe_kind(const struct td_pipe *p); /* what its stream is for */
void td_pipe_abort(struct td_pipe *p, uint32_t reason);	    /* RST both ways; pipe_closed comes from the loop */
/* For pipe_closed: how it ended, in words that may be the peer's (escape them): "done", "reset at this end", "could not
 * connect: 127.0.0.1:1: Connection refused".  Until the callback returns, or buf is gone. */
const char *td_pipe_end_text(const struct td_pipe *p, uint32_t reason, char *buf, size_t cap);
struct tnl_stream *td_pipe_stream(struct td_pipe *p);
void td_pipe_bytes(const struct td_pipe *p, uint64_t *in, uint64_t *out); /* moved so far; in: from the local end */

#endif
