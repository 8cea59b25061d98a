/* Inside of a session, shared by its limbs: session.c (life, links, time),
 * session_in.c and session_out.c (messages), session_handshake.c, session_mux*.c
 * (smux over the Output payloads of a Port session, docs/protocol.md) and
 * session_stream*.c.  None of them stands below another; the machines that do
 * (turns, smux, seal, kept, channel) know nothing of sessions.
 *
 * Rules that keep re-entrancy away:
 *  - Users' callbacks run only inside feed, pull, expire, link_up, kms_result and
 *    abort of a session, between tnl_session_cb_enter and tnl_session_cb_leave.
 *  - The tnl_stream_… calls of lib/session.h, and free, never run a callback. What
 *    they cause is written down (due flags, queues) and done by the next pull or expire.
 *  - A stream that the user frees becomes a zombie: out of sight at once, gone
 *    when its last control frame is in the channel and no callback is running. */
#ifndef TNL_SESSION_INTERNAL_H
#define TNL_SESSION_INTERNAL_H
#include "lib/channel.h"
#include "lib/handshake.h"
#include "lib/kept.h"
#include "lib/list.h"
#include "lib/map.h"
#include "lib/seal.h"
#include "lib/session.h"
#include "lib/smux.h"
#include "lib/turns.h"

#define TNL_NEVER UINT64_MAX
#define TNL_MS UINT64_C(1000000)
#define TNL_STREAMS_MAX 16384u	    /* per session; a peer that opens more gets resets */
#define TNL_OPENS_REFUSED_MAX 4096u /* whose refusals wait to be sent: then nothing more is taken */
#define TNL_REVERSE_QUEUE 64u /* words about listeners that wait to be sent; more: the peer asks and does not read */
#define TNL_HEAD_TIME (10000 * TNL_MS) /* for a stream to say where it goes */
#define TNL_MUX_FIRST_WINDOW 16384u    /* what either own end assumes before the first UPD */

/* Flags of our own, sent only when half-close is agreed: the ends of the one stream of a SINGLE session. */
#define TNL_FLAG_STREAM_FIN 0x746e0001u
#define TNL_FLAG_KEEPALIVE 0x746e0002u	/* says nothing; every end ignores a flag that it does not know */
#define TNL_FLAG_STREAM_RST 0x746e0100u /* + reason, 0–255 */

struct tnl_stream {
	struct tnl_session *s;
	void *user, *note;
	uint32_t id;			       /* 0: not given yet, or not multiplexed */
	uint16_t listener;		       /* at the agent, whose connection it is; 0: none */
	char *from;			       /* who connected there; NULL: not told */
	struct tnl_list all, dead, ctl, timed; /* in the lists of struct tnl_mux */
	struct tnl_list work;
	/* sending */
	struct tnl_turn turn;
	bool want, connected;
	bool shut; /* local end reached */
	bool fin_sent, fin_recv, was_reset, zombie;
	bool syn_due, upd_due, fin_due, rst_due, flag3_due; /* control frames to be written, in this order but flag3 */
	bool stands_due;				    /* OPEN, the answer to one */
	bool stands;					    /* it has come */
	bool push_due, eof_due;				    /* callbacks to make from the next pull or expire */
	enum tnl_stream_kind asked;
	uint32_t reset_reason;
	char *reset_words;			   /* that go with it or came with it; NULL: none */
	uint32_t sent, peer_consumed, peer_window; /* smux 2 */
	uint64_t tx_at, rx_at, shut_at, timer_at;
	int64_t last_number; /* message that carries its latest bytes; -1: none yet */
	int64_t old_number;  /* the same when the last link went */
	/* where it goes (Dial) */
	bool head_wanted; /* agent: it has not said so */
	struct tnl_head_reader head_in;
	struct tnl_head *head; /* agent: it has */
	uint8_t *head_out;     /* client: to be sent right after its OPEN; NULL: no more */
	size_t head_len;
	/* receiving */
	struct tnl_kept kept;
	uint32_t kept_ptype;
	uint32_t received, consumed, told, window; /* smux 2; told: consumed of the last UPD */
	bool claims;				   /* its window counts in mux.claimed */
};

struct tnl_mux {
	int version;
	struct tnl_list streams; /* by tnl_stream.all; freed ones stay until they are reaped */
	struct tnl_list dead;	 /* by tnl_stream.dead: zombies that have nothing more to say */
	struct tnl_list work;	 /* by tnl_stream.work: push_due or eof_due */
	struct tnl_list ctl;	 /* by tnl_stream.ctl: control frames due */
	struct tnl_list timed;	 /* by tnl_stream.timed */
	struct tnl_turns turns;	 /* by tnl_stream.turn: those that have something to send */
	struct tnl_map *by_id;
	size_t nstreams;		       /* zombies not counted */
	size_t nzombies, streams_max, refused; /* refused: opens of the peer, since it was last logged */
	uint64_t refused_logged_at;
	uint32_t next_id;
	bool nop_due;
	uint64_t timer_at; /* not later than any stream's timer */
	uint64_t claimed;  /* windows given to the peer and what goes with them, of all streams that claim theirs */
	uint64_t idle_at;  /* when to look for idle ones again */
	unsigned connect_errors;   /* Flag 3 seen whose FIN has not come */
	struct tnl_stream *single; /* BASIC, SINGLE, SHELL, COMMAND: the one stream */
	bool had_single;
	struct tnl_smux_parser in;
};

struct tnl_outmsg {
	struct tnl_list l;
	uint32_t ptype;
	bool wait_ack;	 /* only when nothing is unacknowledged */
	bool wait_ready; /* only when data may flow */
	size_t n;
	uint8_t data[];
};

enum tnl_hs_step {
	TNL_HS_IDLE,
	TNL_HS_WAIT_RESPONSE,
	TNL_HS_WAIT_KMS,
	TNL_HS_WAIT_CHALLENGE,
	TNL_HS_COMPLETING, /* agent */
	TNL_HS_WAIT_REQUEST,
	TNL_HS_WAIT_COMPLETE,
	TNL_HS_DONE /* client */
};

struct tnl_session {
	struct tnl_session_config cfg; /* strings are ours */
	char *version_text;
	struct tnl_session_cb cb;
	enum tnl_session_state state;
	struct tnl_session_info info;
	struct tnl_channel *ch;
	struct tnl_seal *seal;
	bool seal_data;	  /* Output and the like are encrypted */
	uint8_t *scratch; /* plaintext of the message at hand */
	size_t scratch_cap;
	int depth; /* callbacks running */
	bool linked, ever_linked;
	bool held;	/* until tnl_session_release */
	bool peer_seen; /* on this link something came from the other end, or that it is there */
	/* handshake */
	enum tnl_hs_step step;
	struct tnl_hs_request req; /* sent or received */
	struct tnl_caps caps;	   /* agreed */
	uint8_t challenge[TNL_HS_CHALLENGE];
	uint8_t hs_hash[2][32]; /* of request and response */
	char *peer_version, *session_type, *properties, *customer_message;
	bool challenge_acked; /* client: the challenge was answered */
	bool digest_seen;     /* agent: the client wrote a digest that is right */
	bool lax;	      /* agent: the client is not ours and does not write them: taken as a stock agent would */
	bool peer_keepalive;  /* so old that it gives up without smux NOPs */
	bool keep;	      /* keep-alives also without streams */
	uint64_t hs_started, hs_deadline, hold_until, keepalive_at, keepalive_ns;
	/* sending */
	struct tnl_list outq;	     /* struct tnl_outmsg */
	unsigned words;		     /* of them: about listeners */
	struct tnl_stream *reserved; /* who holds the channel's one reservation */
	uint8_t *reserved_at;
	size_t reserved_cap;
	uint64_t retry_at; /* when to flush again although nothing happens */
	uint64_t last_tx;
	int failed; /* found where no callback may run: closed at the next pull or expire */
	int close_err;
	char why[256]; /* text for on_closed */
	/* receiving */
	bool blocked; /* the channel was told "not ready" */
	size_t blocked_len;
	bool ready_due;
	bool closing; /* channel_closed came while data was still owed */
	size_t kept_memory, kept_max;
	struct tnl_mux mux;
	struct tnl_session_stats stats;
};

/* --- session_seal.c --- */
/* The request or the response of the handshake, as it stands on the wire. */
void tnl_session_hs_heard(struct tnl_session *s, bool response, const void *p, size_t n);
int tnl_session_seal_start(struct tnl_session *s, const uint8_t key64[64]); /* what was agreed is known */
void tnl_session_seal_challenge(struct tnl_session *s, uint8_t plain[TNL_HS_CHALLENGE]);
/* The agent's challenge says that it offered more than came here. */
bool tnl_session_seal_stripped(const struct tnl_session *s, const uint8_t plain[TNL_HS_CHALLENGE]);
int tnl_session_send_challenge(struct tnl_session *s, const uint8_t plain[TNL_HS_CHALLENGE], uint32_t ptype,
			       bool wait_ack);
int tnl_session_open_challenge(struct tnl_session *s, const struct tnl_msg *m, uint8_t plain[TNL_HS_CHALLENGE]);
/* *p, *n: the payload of m, then its plaintext. An error has its text in why. */
int tnl_session_open_payload(struct tnl_session *s, const struct tnl_msg *m, const uint8_t **p, size_t *n);

/* --- session.c --- */
static inline bool tnl_session_over(const struct tnl_session *s)
{
	return s->state == TNL_SS_CLOSED;
}
static inline void tnl_session_cb_enter(struct tnl_session *s)
{
	s->depth++;
}
static inline void tnl_session_cb_leave(struct tnl_session *s)
{
	s->depth--;
}
void tnl_session_settle(struct tnl_session *s); /* closes it if something failed or the peer said so */
bool tnl_session_may_send(const struct tnl_session *s, uint64_t now); /* READY and the hold is over */
static inline enum tnl_digest tnl_session_digest(const struct tnl_session *s)
{
	return s->caps.crc32c ? TNL_DIGEST_CRC32C : TNL_DIGEST_SHA256;
}
/* Bytes of a message around the data: nonce before, tag behind. */
static inline size_t tnl_session_front(const struct tnl_session *s)
{
	return s->seal_data ? TNL_SEAL_NONCE : 0;
}
static inline size_t tnl_session_around(const struct tnl_session *s)
{
	return s->seal_data ? TNL_SEAL_OVERHEAD : 0;
}

/* --- session_out.c --- */
/* Encrypts n bytes standing at p + tnl_session_front (if the session does) and commits the message. */
int tnl_session_commit(struct tnl_session *s, uint8_t *p, size_t n, uint32_t ptype, uint64_t now) TNL_MUST_USE;
int tnl_session_out_buf(struct tnl_session *s, uint32_t ptype, struct tnl_buf *b, bool wait_ack) TNL_MUST_USE;
int tnl_session_out_flag(struct tnl_session *s, uint32_t flag) TNL_MUST_USE;
/* Queued messages, then control frames of streams, into the channel as far as it takes them. */
void tnl_session_out_flush(struct tnl_session *s, uint64_t now);
void tnl_session_out_clear(struct tnl_session *s);

/* --- session_handshake.c --- */
int tnl_session_hs_start(struct tnl_session *s, uint64_t now) TNL_MUST_USE; /* first link */
int tnl_session_hs_message(struct tnl_session *s, const struct tnl_msg *m, uint64_t now) TNL_MUST_USE;
/* A queued handshake message is in the channel. */
void tnl_session_hs_sent(struct tnl_session *s, uint32_t ptype, uint64_t now);
void tnl_session_hs_ready(struct tnl_session *s, uint64_t now); /* data may flow: on_ready, streams */
void tnl_session_hs_fini(struct tnl_session *s);

/* --- session_in.c --- */
int tnl_session_deliver(void *ctx, const struct tnl_msg *m, uint64_t now); /* the channel's callback */

/* --- session_mux.c, session_mux_in.c --- */
int tnl_mux_init(struct tnl_mux *m) TNL_MUST_USE;
void tnl_mux_fini(struct tnl_mux *m);
struct tnl_stream *tnl_mux_find(const struct tnl_mux *m, uint32_t id); /* NULL also for a freed one */
int tnl_mux_feed(struct tnl_session *s, const uint8_t *p, size_t n, uint64_t now) TNL_MUST_USE;
bool tnl_mux_flush(struct tnl_session *s, uint64_t now); /* control frames; false: the channel is full */
bool tnl_mux_sendable(const struct tnl_stream *st);
size_t tnl_mux_window(const struct tnl_stream *st); /* bytes that the peer will take now */
void tnl_mux_first_grant(struct tnl_stream *st);
void tnl_mux_claim(struct tnl_stream *st, bool claims);
void tnl_mux_grant(struct tnl_stream *st); /* after consuming: UPD when worth it */

/* --- session_stream.c: life, timers, sending --- */
struct tnl_stream *tnl_stream_create(struct tnl_session *s, bool ours, uint64_t now); /* ours: opened at this end */
void tnl_stream_destroy(struct tnl_stream *st);
void tnl_stream_start(struct tnl_stream *st, uint64_t now); /* client, READY: id and SYN, or its place as the one */
void tnl_stream_call_open(struct tnl_stream *st);	    /* on_open */
void tnl_stream_arm_timer(struct tnl_stream *st);
void tnl_stream_queue_control(struct tnl_stream *st);		    /* some control frame of it is due */
void tnl_stream_leave_control(struct tnl_stream *st);		    /* none is any more */
void tnl_stream_send_reset(struct tnl_stream *st, uint32_t reason); /* tells the peer, drops what is kept */
void tnl_stream_keep_words(struct tnl_stream *st, const char *words, size_t n);
void tnl_stream_report_reset(struct tnl_stream *st, uint32_t reason); /* tells the user (on_reset) */
void tnl_session_streams_expire(struct tnl_session *s, uint64_t now);
void tnl_session_streams_reap(struct tnl_session *s);

/* --- session_head.c: where a stream goes --- */
/* Bytes of a stream whose head is not whole: *p, *n become what follows it, nothing when the stream was refused. */
int tnl_stream_take_head(struct tnl_stream *st, const uint8_t **p, size_t *n) TNL_MUST_USE;
int tnl_stream_put_head(struct tnl_stream *st, const struct tnl_head *h) TNL_MUST_USE; /* to be sent */
/* Agent: it never said where it goes; nobody has heard of it. */
void tnl_stream_refuse_unheard(struct tnl_stream *st, uint32_t reason, const char *words);
void tnl_stream_drop_head(struct tnl_stream *st); /* nothing of it is to be sent */
void tnl_stream_head_fini(struct tnl_stream *st);
static inline bool tnl_stream_unheard(const struct tnl_stream *st) /* the agent's user does not know of it */
{
	return st->head_wanted;
}

/* --- session_stream_in.c: receiving --- */
bool tnl_session_room(const struct tnl_session *s, size_t n); /* may a message of n bytes be kept? */
/* Hands n bytes to the consumer, keeps the rest. 0, TNL_ENOMEM. */
int tnl_stream_take_data(struct tnl_stream *st, uint32_t ptype, const uint8_t *p, size_t n, uint64_t now) TNL_MUST_USE;
void tnl_stream_peer_ended(struct tnl_stream *st);
void tnl_stream_end_single(struct tnl_stream *st);		    /* not multiplexed: both directions over */
void tnl_session_streams_work(struct tnl_session *s, uint64_t now); /* push_due, eof_due */

#endif
