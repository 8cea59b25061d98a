/* One Session Manager session, either end: handshake, optional encryption, mux
 * (smux 1/2, basic, single stream, shell) over the reliable channel.
 * It survives links: the daemon attaches one, loses it, attaches the next.
 *
 * Verbs: feed (messages in), pull (messages out), next/reserve/commit (stream
 * bytes out), deadline/expire (time).
 *
 * Callbacks run only inside feed, pull, expire, link_up, kms_result and abort,
 * never inside a tnl_stream_… call or tnl_session_free. Inside a callback every tnl_stream_…
 * call is allowed (tnl_stream_free too: it takes effect afterwards), also
 * send_flag/size/exit_code/state, kms_result and abort (which closes when the outer call ends);
 * on_data is the exception: it may call nothing. Not allowed inside any: tnl_session_free,
 * feed, pull, expire, link_up and link_down of the session.
 * After any tnl_stream_… or send_… call something may be due: pull, and look at the deadline again.
 *
 *   local socket → next() → reserve → read(2) → commit → channel → pull → link
 *   link → feed → channel → mux → on_data → write(2); what is left is kept in
 *   the stream (window) → peek/consume when the socket is writable */
#ifndef TNL_SESSION_H
#define TNL_SESSION_H
#include "lib/channel.h"
#include "lib/head.h"
#include "lib/stock.h"
#include "lib/handshake.h"
#include "lib/reverse.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum tnl_session_mode {
	TNL_MODE_UNKNOWN,
	TNL_MODE_MUX,	 /* Port, LocalPortForwarding, multiplexed */
	TNL_MODE_BASIC,	 /* Port, LocalPortForwarding, one connection at a time */
	TNL_MODE_SINGLE, /* Port without type (SSH document): one byte stream */
	TNL_MODE_SHELL,	 /* Standard_Stream, InteractiveCommands */
	TNL_MODE_COMMAND /* NonInteractiveCommands */
};

const char *tnl_session_mode_name(enum tnl_session_mode mode); /* "mux", …: in logs and status */

enum tnl_session_state { TNL_SS_NEW, TNL_SS_HANDSHAKE, TNL_SS_READY, TNL_SS_CLOSED };

/* Reasons on RST frames (cmd 5) and in on_reset. */
enum tnl_reset {
	TNL_RESET_UNSPEC,
	TNL_RESET_PEER,	   /* the far TCP end reset */
	TNL_RESET_CONNECT, /* dial failed */
	TNL_RESET_DENIED,
	TNL_RESET_TIMEOUT,
	TNL_RESET_SESSION, /* session over */
	TNL_RESET_LIMIT,
	TNL_RESET_SHUTDOWN,
	TNL_RESET_DOUBT, /* a stock agent lost its link while bytes were on their way to it */
	/* In place of CONNECT, of streams that said themselves where they go: */
	TNL_RESET_NAME, /* the name has no address */
	TNL_RESET_HOST, /* no way to the host */
	TNL_RESET_NET	/* no way to its network */
};
static inline bool tnl_reset_is_refusal(uint32_t reason) /* it was never connected, and the far end said so */
{
	return reason == TNL_RESET_CONNECT || reason == TNL_RESET_DENIED ||
	       (reason >= TNL_RESET_NAME && reason <= TNL_RESET_NET);
}
const char *tnl_reset_text(uint32_t reason);

/* What a stream is for. */
enum tnl_stream_kind {
	TNL_KIND_PLAIN, /* a connection */
	TNL_KIND_TOLD,	/* a connection of which the client hears when it stands: on_connected, else on_reset */
	TNL_KIND_ECHO,	/* none: what is sent comes back */
	TNL_KIND_UDP	/* datagrams (lib/dgram.h), both ways, where that is agreed (info.udp); told as TOLD is */
};

struct tnl_session;
struct tnl_stream;

/* Flag of our own, client to agent, where several links are agreed: + how many of them the agent is to keep open. */
#define TNL_FLAG_LINKS 0x746e0200u
/* Agent to client, where several links are agreed: what it sends meets losses, and more links would make it faster. */
#define TNL_FLAG_LOSSY 0x746e0003u
/* The same: the path of what it sends is full, and more links would make queues of their own. */
#define TNL_FLAG_FULL 0x746e0004u

struct tnl_kms_request { /* valid during the callback: copy what is needed */
	bool generate;	 /* client: GenerateDataKey(64 bytes); agent: Decrypt */
	const char *key_id;
	const char *challenge; /* base64 text for aws:ssm:RandomChallenge, or NULL */
	const uint8_t *ciphertext;
	size_t ciphertext_len; /* Decrypt */
};

struct tnl_session_info { /* after the handshake */
	enum tnl_session_mode mode;
	const char *peer_version; /* AgentVersion or ClientVersion; "" without handshake */
	const char *session_type; /* "Port", "Standard_Stream", … */
	const char *customer_message;
	const char *peer_program; /* version of the tunneld at the other end; "" when it is none */
	bool own_peer;		  /* TunneldCapabilities agreed */
	unsigned links;		  /* through the gateway that the session may have, 1 unless agreed */
	bool half_close, encrypted;
	bool opens;	  /* tnl_stream_ask */
	bool udp;	  /* the same for TNL_KIND_UDP */
	int smux_version; /* 1 or 2 in MUX mode */
	size_t max_payload;
	const char *properties_json; /* of the SessionType action, or NULL */
	enum tnl_direct_use direct;
	bool reverse; /* agreed: listeners at the agent, whose connections it opens */
	int dial;     /* not 0: each stream says where it goes (tnl_stream_open_to) */
};

struct tnl_session_cb {
	void (*on_ready)(void *ctx, const struct tnl_session_info *info);
	/* A stream is there, and where it says where it goes that has come whole; dial now, call tnl_stream_connected
	 * or tnl_stream_reset later (or now). At the client only where Reverse is agreed. MUX: the other end opened it.
	 * All other modes: the one stream, right after on_ready (BASIC: again for the next connection); SHELL and
	 * COMMAND count as connected already. on_data and on_eof wait for connected (then they come from the next pull
	 * or expire); on_reset does not. */
	void (*on_open)(void *ctx, struct tnl_stream *st);
	/* Bytes for the local side, in order: returns how many were taken (0..n);
	 * the rest is kept. May call nothing of this session. ptype is TNL_PT_OUTPUT or TNL_PT_STDERR. */
	size_t (*on_data)(void *ctx, struct tnl_stream *st, uint32_t ptype, const uint8_t *p, size_t n);
	/* The peer will send no more (all kept bytes come first: check peek). Without half-close
	 * (half_closed false) the stream is over in both directions once kept bytes are written. */
	void (*on_eof)(void *ctx, struct tnl_stream *st, bool half_closed);
	void (*on_reset)(void *ctx, struct tnl_stream *st, uint32_t reason); /* drop kept bytes; then tnl_stream_free */
	/* Client, after tnl_stream_ask or tnl_stream_open_to; before any byte of the far end. */
	void (*on_connected)(void *ctx, struct tnl_stream *st);
	void (*on_size)(void *ctx, unsigned cols, unsigned rows); /* agent, shell */
	void (*on_exit_code)(void *ctx, int code);		  /* client, command */
	void (*on_flag)(void *ctx, uint32_t flag); /* TERMINATE at the agent; CONNECT_ERROR at the client */
	void (*on_publication)(void *ctx, bool started);
	/* Where Reverse is agreed: what the other end says of listeners; valid during the call. */
	void (*on_reverse)(void *ctx, const struct tnl_reverse *r);
	/* A key is required; answer with tnl_session_kms_result, at any later time. NULL: encryption refused. */
	void (*on_kms)(void *ctx, const struct tnl_kms_request *r);
	/* The session is over (channel_closed with Output, protocol error, too many resends, handshake
	 * failed). Called once; err: TNL_ECLOSED for channel_closed, else the cause. Text is raw from the
	 * peer: escape before showing. All streams have had on_reset or, when drained, on_eof before. */
	void (*on_closed)(void *ctx, int err, const char *text);
};

struct tnl_session_config {
	bool agent; /* which end */
	const char *session_id;
	const char *version;   /* NULL: TNL_CLIENT_VERSION / TNL_AGENT_VERSION */
	size_t memory_max;     /* 16 MiB: send, reorder and kept bytes together */
	size_t stream_window;  /* 1 MiB */
	size_t max_payload;    /* what we offer or take between own ends; default 32 KiB; 0: 1,024 */
	unsigned message_rate; /* see channel */
	unsigned resend_max;
	uint64_t half_close_timeout_ns;	 /* 10 min; 0: none */
	uint64_t fin_quiet_ns;		 /* 2 s: FIN held back towards stock ends */
	uint64_t keepalive_ns;		 /* NOP interval while streams are open, 0: none */
	uint64_t handshake_timeout_ns;	 /* agent: 15 s per step; client: 60 s from link up to READY; 0: default */
	uint64_t hold_after_complete_ns; /* client towards a stock agent: 5 ms; 0: default */
	unsigned links;			 /* offered with them: up to so many links; 0, 1: one */
	bool link_queue;		 /* offered with them: acks ask our gateway what stands before a hop */
	enum tnl_direct_use direct;	 /* offered with them: a direct link; an agent that has a port for it: ONLY */
	bool reverse;			 /* offered with them: listeners at the agent, as far as on_reverse allows */
	bool udp; /* offered with them: streams of datagrams; a client that offers it takes no agent that does not */
	int dial; /* offered with them: TNL_DIAL_VERSION, streams say where they go; 0: no */
	bool offer_capabilities; /* own extensions on (default wish: true) */
	bool require_encryption;
	bool require_dial;	 /* client: a session whose streams cannot say where they go is refused */
	const char *kms_key_pin; /* client: encryption with another key is refused; NULL: any */
	/* client: session type that was asked for ("Port", …); anything else is refused. NULL: any */
	const char *expected_type;
	/* client that starts without knowing (shell without handshake): first Output makes it READY in SHELL mode */
	/* agent: */
	const char *session_type;    /* "Port", "Standard_Stream", "InteractiveCommands", "NonInteractiveCommands" */
	const char *properties_json; /* for the SessionType action; NULL writes null */
	const char *kms_key_id;	     /* encrypt with this key; NULL: no */
	bool require_challenge_ack;
	bool skip_handshake; /* agent: plain shells have none */
	const char *customer_message;
	uint64_t (*wall_ms)(void *ctx);
	/* Asked before more bytes are kept for a local reader that does not take them; false: not now, the peer sends
	 * again; tnl_session_retry when it may. A session that keeps nothing is not asked. NULL: only memory_max
	 * counts. */
	bool (*may_keep)(void *ctx);
	const struct tnl_session_cb *cb;
	void *ctx; /* for cb and wall_ms */
};

struct tnl_session *tnl_session_new(const struct tnl_session_config *c, uint64_t now); /* copies the strings */
void tnl_session_free(struct tnl_session *s); /* streams still there are freed without callbacks */
const char *tnl_session_id(const struct tnl_session *s);
enum tnl_session_state tnl_session_state(const struct tnl_session *s);
const struct tnl_session_info *tnl_session_info(const struct tnl_session *s);
struct tnl_channel *tnl_session_channel(struct tnl_session *s);

/* --- link ------------------------------------------------------------------ */
/* client_id… of the token frame are the daemon's business. */
void tnl_session_link_up(struct tnl_session *s, uint64_t now); /* agent: starts the handshake at the first */
/* Several links (lib/channel.h says what they are): link 0 is there first, more of them only between our own ends that
 * agreed on it (info.links). In the place of an older one of that number. 0, TNL_EINVAL, TNL_ENOMEM. */
int tnl_session_link_add(struct tnl_session *s, unsigned link, unsigned rank, uint64_t now) TNL_MUST_USE;
void tnl_session_link_gone(struct tnl_session *s, unsigned link, uint64_t now);
static inline void tnl_session_link_down(struct tnl_session *s, uint64_t now)
{
	tnl_session_link_gone(s, 0, now);
}
/* A session that is to have nothing but its handshake on the gateway's link (info.direct is ONLY) sends no data until
 * this: its direct link is there. */
void tnl_session_release(struct tnl_session *s);
/* One WebSocket binary message that came on a link. 0 (also for what was dropped and counted); negative: session
 * closed.
 */
int tnl_session_feed_on(struct tnl_session *s, unsigned link, const uint8_t *p, size_t n, uint64_t now) TNL_MUST_USE;
static inline int tnl_session_feed(struct tnl_session *s, const uint8_t *p, size_t n, uint64_t now)
{
	return tnl_session_feed_on(s, 0, p, n, now);
}
/* Next message for a link, 1 or TNL_EAGAIN. Slice valid until the next call of any kind. With several links: ask them
 * in the order of tnl_channel_link_order, again after each message that was made. */
int tnl_session_pull_on(struct tnl_session *s, unsigned link, uint64_t now, const uint8_t **p, size_t *n) TNL_MUST_USE;
static inline int tnl_session_pull(struct tnl_session *s, uint64_t now, const uint8_t **p, size_t *n)
{
	return tnl_session_pull_on(s, 0, now, p, n);
}
uint64_t tnl_session_deadline(const struct tnl_session *s);
void tnl_session_expire(struct tnl_session *s, uint64_t now);
void tnl_session_kms_result(struct tnl_session *s, int err, const uint8_t *plaintext, size_t plen,
			    const uint8_t *ciphertext, size_t clen, const char *err_text, uint64_t now);
void tnl_session_send_flag(struct tnl_session *s, uint32_t flag, uint64_t now);
void tnl_session_send_size(struct tnl_session *s, unsigned cols, unsigned rows, uint64_t now);
void tnl_session_send_exit_code(struct tnl_session *s, int code, uint64_t now); /* agent, COMMAND */
/* A word about listeners (lib/reverse.h), where that is agreed; else nothing happens. */
void tnl_session_send_reverse(struct tnl_session *s, const struct tnl_reverse *r, uint64_t now);
/* Client: keep-alives go also while no stream is open. */
void tnl_session_keep(struct tnl_session *s, bool on);
/* agent: "Connected" is sent by itself at the first link; "Terminating" at exit */
void tnl_session_send_state(struct tnl_session *s, const char *state, uint64_t now);
bool tnl_session_drained(const struct tnl_session *s); /* everything sent is acknowledged */
/* Ends it locally: streams reset, on_closed called with err. */
void tnl_session_abort(struct tnl_session *s, int err, const char *text, uint64_t now);
void tnl_session_retry(struct tnl_session *s); /* may_keep would say yes again; run the session afterwards */
size_t tnl_session_memory(const struct tnl_session *s);
size_t tnl_session_streams(const struct tnl_session *s);
/* An open of the other end beyond so many is answered with TNL_RESET_LIMIT, and nobody hears of it; at first 16,384. */
void tnl_session_limit_streams(struct tnl_session *s, size_t most);
struct tnl_session_stats {
	uint64_t bad_messages, unknown_messages, bad_payloads, unknown_payloads, unknown_frames, early_data;
};
/* What was dropped; the channel has counters of its own. */
const struct tnl_session_stats *tnl_session_stats(const struct tnl_session *s);
/* Calls fn for each counter, always in the same order, with its name ("bad_messages", …) for status and logs. */
void tnl_session_stats_each(const struct tnl_session_stats *st, void (*fn)(void *ctx, const char *name, uint64_t value),
			    void *ctx);

/* --- streams ----------------------------------------------------------------- */
/* Client: opens a stream (SYN goes out with the first pull). BASIC and SINGLE: one at a time,
 * else TNL_EBUSY in *err. Before READY it is queued. SHELL/COMMAND: opens the one terminal stream. */
struct tnl_stream *tnl_stream_open(struct tnl_session *s, void *user, uint64_t now, int *err);
/* Client, right after tnl_stream_open: what it is for.  false: the session does not know of that (info.opens), or the
 * SYN has gone; then the stream is a plain one. */
bool tnl_stream_ask(struct tnl_stream *st, enum tnl_stream_kind kind) TNL_MUST_USE;
enum tnl_stream_kind tnl_stream_asked(const struct tnl_stream *st);
/* Agent, where Reverse is agreed (info.reverse): the same for a connection to a listener of the client's, from there.
 * TNL_EINVAL: not agreed. It is connected: its bytes may go at once. */
struct tnl_stream *tnl_stream_open_reverse(struct tnl_session *s, void *user, uint16_t listener, const char *from,
					   uint64_t now, int *err);
uint16_t tnl_stream_listener(const struct tnl_stream *st); /* 0: it does not come from one */
const char *tnl_stream_from(const struct tnl_stream *st);  /* who connected there; "" when not told */
/* Where Dial is agreed (info.dial) each stream has a destination, elsewhere none has: TNL_EINVAL.  Copied. */
struct tnl_stream *tnl_stream_open_to(struct tnl_session *s, const struct tnl_head *to, void *user, uint64_t now,
				      int *err);
/* Agent: where it is to go; NULL: where the session goes. */
const struct tnl_head *tnl_stream_head(const struct tnl_stream *st);
void tnl_stream_set_user(struct tnl_stream *st, void *user);
void *tnl_stream_user(const struct tnl_stream *st);
/* A second one, for who has to hear of its opening before there is a user. */
void tnl_stream_set_note(struct tnl_stream *st, void *note);
void *tnl_stream_note(const struct tnl_stream *st);
uint32_t tnl_stream_id(const struct tnl_stream *st);
void tnl_stream_connected(struct tnl_stream *st, uint64_t now); /* agent: dial done; reading may begin */

/* Sending. want_send says whether the local side has something to send; next picks whose turn it is by bytes, small
 * and new ones first: NULL when nothing may be sent now; reserve says how much. Call next again after each commit. */
void tnl_stream_want_send(struct tnl_stream *st, bool want);
struct tnl_stream *tnl_session_next(struct tnl_session *s, uint64_t now);
uint8_t *tnl_stream_reserve(struct tnl_stream *st, size_t *cap, uint64_t now); /* NULL: not now */
/* n 0: abandoned. ptype: TNL_PT_OUTPUT, in SHELL and COMMAND mode also TNL_PT_STDERR. */
int tnl_stream_commit(struct tnl_stream *st, size_t n, uint32_t ptype, uint64_t now) TNL_MUST_USE;
void tnl_stream_shutdown(struct tnl_stream *st, uint64_t now); /* local EOF: FIN (held back towards stock ends) */
/* The same, with words for a person at the other end: what went wrong, cut at TNL_SMUX_WORDS bytes.  They are dropped
 * where they were not agreed on. */
void tnl_stream_reset_because(struct tnl_stream *st, uint32_t reason, const char *words, uint64_t now);
/* What the peer's reset said, "" when nothing; raw: escape it.  Until the stream is freed. */
const char *tnl_stream_reset_words(const struct tnl_stream *st);
/* Abort; no on_reset; free it next. Agent, before connected, stock client: Flag 3 then FIN. */
void tnl_stream_reset(struct tnl_stream *st, uint32_t reason, uint64_t now);

/* Receiving what on_data did not take. */
size_t tnl_stream_peek(struct tnl_stream *st, const uint8_t **p);
uint32_t tnl_stream_kept_ptype(const struct tnl_stream *st); /* of what peek shows: kept bytes are all of one type */
void tnl_stream_consume(struct tnl_stream *st, size_t n, uint64_t now); /* opens the window */
bool tnl_stream_eof(const struct tnl_stream *st);			/* peer's end reached and nothing kept */
bool tnl_stream_done(const struct tnl_stream *st);			/* both directions over: free it */
size_t tnl_stream_kept(const struct tnl_stream *st);
/* Its local end is over, and the FIN waits until the other direction has been quiet (a stock peer). */
bool tnl_stream_holding(const struct tnl_stream *st);
void tnl_stream_free(struct tnl_stream *st); /* resets first if it is not done */

#endif
