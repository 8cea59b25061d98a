/* Inside of the forwarder.
 *
 *   tunnel (listeners) ─ accept → connection ─ waits in → group ─ placed on → session → pump → pipe
 *
 * A group is what tunnels with the same target, host, port, document, AWS block and session policy share.  It holds the
 * sessions and the connections that wait for one.
 *
 * The files, from the top down.  Each calls only those below it; upwards go the members of type td_soon: what was asked
 * for is done by the owner of the member, later in the same turn.
 *
 *   forwarder    set up, the end without a word               asked for by
 *   reload       what a new configuration changes
 *   status       what it shows
 *   metrics      the same, for machines; is it ready?
 *   switch       tunnels opened and closed by hand
 *   one_shot     commands that this daemon serves             fwd_guest.settle
 *   drain        the end in order                             td_forwarder.settle
 *   tunnel       listening, accepting, pausing                fwd_tunnel.settle
 *   probe        a look through the whole tunnel
 *   proxy        what those who use a proxy say first, and which group takes them    fwd_proxy.settle
 *   password     who may
 *   session      from its start to its end                    fwd_group.adjust, fwd_session.unneeded
 *   reverse      what listens at the agent: words, connections from there
 *   group        who goes to which session, who waits
 *   connection   from accept to close
 *   share        what the ports of a range have together
 *   ending       TerminateSession calls, what a crash left
 *   guest        what is said to such a command */
#ifndef TD_FORWARDER_INTERNAL_H
#define TD_FORWARDER_INTERNAL_H
#include "lib/list.h"
#include "lib/metrics.h"
#include "lib/proxyhead.h"
#include "tunneld/aws/aws.h"
#include "tunneld/base/ledger.h"
#include "tunneld/base/memory.h"
#include "tunneld/client/client.h"
#include "tunneld/forwarder/forwarder.h"
#include "tunneld/net/addr.h"
#include "tunneld/pump/pump.h"

#define FWD_MOD "forwarder"
#define FWD_MAX_LISTEN 16
#define FWD_HOLDING_MAX 4096u
#define FWD_GREETINGS_MAX 128u /* of a tunnel at a time */

struct fwd_group;

/* --- the forwarder -------------------------------------------------------------------------- */

/* Draining: connections finish.  Ending: none is left, the sessions end.  Over: nothing is started or told any more. */
enum fwd_state { FWD_RUNNING, FWD_DRAINING, FWD_ENDING, FWD_OVER };

struct td_forwarder {
	struct td_loop *loop;
	enum fwd_state state;
	const struct td_config *cfg; /* a reference: what is in force */
	struct tnl_list tunnels, groups, guests;
	unsigned nguests;
	struct tnl_list endings;  /* TerminateSession calls under way */
	struct td_ledger *ledger; /* ids of open sessions, with the name of their tunnel */
	struct td_soon settle;	  /* something ended: how far is the drain? */
	td_forwarder_started_fn *started;
	void *started_ctx;
	struct td_timer drain_timer;
	void (*done)(void *);
	void *done_ctx;
};
void fwd_set_state(struct td_forwarder *f, enum fwd_state st);
void fwd_drain_settle(void *forwarder);

/* Why a connection was reset before it had carried anything. */
enum fwd_failure { FWD_F_SESSION, FWD_F_TIMEOUT, FWD_F_REFUSED, FWD_F_DENIED, FWD_F_SHUTDOWN, FWD_F_COUNT };

/* --- tunnels -------------------------------------------------------------------------------- */

/* The last result; FWD_P_NONE: there has been none.  What comes behind FWD_P_OK is a failure. */
enum fwd_probe_result { FWD_P_NONE, FWD_P_OK, FWD_P_SESSION, FWD_P_TIMEOUT, FWD_P_REFUSED, FWD_P_DENIED, FWD_P_COUNT };
extern const char *const fwd_probe_results[FWD_P_COUNT + 1];

struct fwd_tunnel;
struct fwd_probe {
	struct fwd_tunnel *t;
	enum fwd_probe_state { FWD_PROBE_RESTING, FWD_PROBE_GOING, FWD_PROBE_CLOSING } state;
	bool stopped;
	bool told;	       /* the far end will say when it has connected */
	struct td_timer timer; /* the next one, or how long this one may still take */
	struct fwd_conn *conn; /* NULL: none is under way */
	int fd;		       /* the end in place of a local program's */
	ev_io io;
	uint64_t began;
	/* of the last one that came to something */
	enum fwd_probe_result result;
	bool certain;
	char why[256];
	uint64_t at, took_ns;
	uint64_t success_ms; /* wall time of the last success; 0: never */
	uint64_t runs[FWD_P_COUNT];
};
void fwd_probe_init(struct fwd_probe *p, struct fwd_tunnel *t);
/* If the tunnel has one; it has its configuration and its group. */
void fwd_probe_start(struct fwd_probe *p);
/* No more of them; one that is under way is cut, and is gone when conn is NULL. */
void fwd_probe_stop(struct fwd_probe *p);
void fwd_probe_forget(struct fwd_probe *p);		  /* its connection went without a word */
const char *fwd_probe_trouble(const struct fwd_probe *p); /* why the last one failed; "": it did not */

/* Passwords of a proxy that were seen to be right, as a keyed hash, and how many may be tried now: by each address, and
 * by all. */
struct fwd_passwords {
	uint8_t key[32], known[64][32];
	unsigned nknown, next, tries;
	uint64_t tries_at;
	struct td_throttle *wrong; /* NULL: there was none yet */
};
enum fwd_password { FWD_PASSWORD_OK, FWD_PASSWORD_WRONG, FWD_PASSWORD_UNCHECKED };
void fwd_passwords_init(struct fwd_passwords *p);
void fwd_passwords_fini(struct fwd_passwords *p);
/* lines: as of struct td_users.  UNCHECKED: there were too many wrong ones. */
enum fwd_password fwd_password_check(struct fwd_passwords *p, const struct td_strlist *lines, const char *user,
				     const char *password, const struct td_addr *from, uint64_t now);

/* What a tunnel of type proxy has beside the others.  Its own group is for a session whose streams say where they go;
 * where the far end does not agree on that, each destination has a group. */
struct fwd_proxy {
	struct fwd_tunnel *t;
	struct tnl_list greeting; /* fwd_conn.node: have not said where to, the oldest first */
	struct tnl_list ready;	  /* fwd_conn.node: have, and max_connections are there */
	unsigned ngreeting;	  /* of both; they are not among max_connections, and FWD_GREETINGS_MAX at most */
	uint64_t displaced;	  /* gave way to a newer one before they had said it */
	struct tnl_list waiting;  /* fwd_conn.node: for room for one more destination */
	struct tnl_list dests;	  /* fwd_group.dest */
	unsigned ndests;
	uint64_t no_dial_until; /* 0: it is not known that it does not agree */
	struct td_soon settle;	/* a group has gone, or its own one cannot serve */
	struct fwd_passwords passwords;
};
void fwd_proxy_init(struct fwd_proxy *p, struct fwd_tunnel *t);
/* Takes an accepted connection. */
void fwd_proxy_greet(struct fwd_conn *c, const struct td_addr *peer);
void fwd_proxy_admit(struct fwd_proxy *p);		  /* who is ready, as far as max_connections allows */
void fwd_proxy_cut(struct fwd_proxy *p, const char *why); /* who has no group yet */
void fwd_proxy_adjust(struct fwd_proxy *p);		  /* its groups: is each still wanted? */
void fwd_proxy_fini(struct fwd_proxy *p);		  /* lets go of its groups */

/* What the ports of a range have together; a tunnel that is no port of a range has one for itself. */
struct fwd_share {
	struct tnl_list tunnels; /* fwd_tunnel.by_share */
	struct td_pace *pace;	 /* bandwidth; NULL: none */
	bool full;		 /* at max_connections, as the tunnels were told */
};
bool fwd_share_join(struct fwd_tunnel *t); /* false: no memory */
void fwd_share_leave(struct fwd_tunnel *t);
unsigned fwd_share_connections(const struct fwd_share *s); /* that count for max_connections */

struct fwd_tunnel {
	struct tnl_list node; /* forwarder->tunnels */
	struct tnl_list by_share;
	struct fwd_share *share;
	struct td_forwarder *f;
	const struct td_tunnel_config *cfg;
	const struct td_config *owner; /* keeps cfg alive */
	struct fwd_group *group;
	struct td_listener *listeners[FWD_MAX_LISTEN];
	struct td_addr bound[FWD_MAX_LISTEN];
	int nlisteners;
	unsigned connections;  /* accepted and not closed */
	unsigned holding;      /* of these: only their FIN waits */
	struct tnl_list conns; /* placed fwd_conn.node */
	struct td_soon settle; /* a connection has gone */
	struct fwd_udp *udp;   /* type = udp; NULL: it is not */
	struct td_memory_waiter room;
	struct td_timer relisten; /* an address could not be had */
	struct td_backoff backoff;
	char listen_error[256];		      /* "": it listens */
	struct {			      /* type = reverse */
		char bound[TNL_REVERSE_BIND]; /* at the agent; "": not, or not known */
		bool resting;		      /* it asks for no session */
		struct tnl_list dialing;      /* fwd_incoming.node */
	} reverse;
	bool paused;
	bool closed; /* by hand, until it is opened by hand */
	uint64_t closed_at;
	bool closing;		 /* off the configuration, its connections finish */
	bool hidden;		 /* it serves one-shot commands and is in no configuration */
	struct fwd_guest *guest; /* the one command that it is for; NULL: any */
	struct td_timer linger;	 /* hidden: until nobody has come for idle_timeout */
	uint64_t accepted, failed, bytes_in, bytes_out;
	uint64_t failures[FWD_F_COUNT]; /* of failed */
	uint64_t success_ms;		/* wall time at which a connection was given to a session last; 0: never */
	struct tnl_histogram connect;	/* accepted → given to a session */
	struct fwd_probe probe;
	struct fwd_proxy proxy;
};
/* Connections without greetings. */
static inline unsigned fwd_tunnel_open(const struct fwd_tunnel *t)
{
	return t->connections - t->proxy.ngreeting;
}
/* Whose sessions say how the tunnel is: its own, or, of a proxy that has none of its own, those of a destination, one
 * that is not well before the others. */
const struct fwd_group *fwd_tunnel_speaker(const struct fwd_tunnel *t);
/* "up", "resuming", …: one of fwd_tunnel_states (ends in NULL). */
extern const char *const fwd_tunnel_states[];
const char *fwd_tunnel_state(const struct fwd_tunnel *t);
void fwd_tunnel_bytes(const struct fwd_tunnel *t, uint64_t *in, uint64_t *out); /* also of open connections */
/* The session that speaks for the group: one that is up, else any; NULL: there is none. */
const struct fwd_session *fwd_group_speaker(const struct fwd_group *g);
/* Listens.  must: NULL and *why when an address cannot be had; else it is tried again later. */
struct fwd_tunnel *fwd_tunnel_new(struct td_forwarder *f, const struct td_config *cfg,
				  const struct td_tunnel_config *tc, bool must, char *why, size_t cap);
/* It is announced and may ask for a session. */
void fwd_tunnel_begin(struct fwd_tunnel *t);
/* The first tunnel of those that share its sessions: it itself when none came before it. */
const struct fwd_tunnel *fwd_tunnel_owner(const struct fwd_tunnel *t);
/* What it says of the tunnel differs in the keys of [aws] only. */
void fwd_tunnel_take_config(struct fwd_tunnel *t, const struct td_config *cfg, const struct td_tunnel_config *tc);
/* No new connections, the running ones finish; it frees itself then. */
void fwd_tunnel_close(struct fwd_tunnel *t);
int fwd_tunnel_listen(struct fwd_tunnel *t, char *why, size_t cap);
/* A socket that listens already: taken when it succeeds. */
int fwd_tunnel_listen_on(struct fwd_tunnel *t, int fd, char *why, size_t cap);
bool fwd_tunnel_full(const struct fwd_tunnel *t);
void fwd_tunnel_stop_listening(struct fwd_tunnel *t);
void fwd_tunnel_listen_later(struct fwd_tunnel *t, const char *why);

/* --- tunnels of datagrams ------------------------------------------------------------------- */

struct fwd_udp *fwd_udp_new(struct fwd_tunnel *t); /* NULL: no memory */
/* One socket more; *bound is where.  -1 and *why. */
int fwd_udp_listen(struct fwd_udp *u, const struct td_addr *a, struct td_addr *bound, char *why, size_t cap);
void fwd_udp_close(struct fwd_udp *u); /* its sockets, and its flows end; u NULL: nothing */
void fwd_udp_free(struct fwd_udp *u);  /* no flow is left */
uint64_t fwd_udp_dropped(const struct fwd_udp *u);

/* --- sessions ------------------------------------------------------------------------------- */

struct fwd_session {
	struct tnl_list node; /* group->sessions */
	struct fwd_group *group;
	struct td_client *client;
	struct td_timer idle;
	bool ending;
	uint64_t away_since;	   /* the link is away; 0: it is there, or has not come yet */
	bool one_shot;		   /* per-connection: ends with its pipe */
	struct fwd_conn *reserved; /* per-connection: for whom it was started, until it is placed */
	struct td_soon unneeded;   /* that one has given up */
	size_t holding;		   /* of its pipes: only their FIN waits */
	uint64_t bytes_in, bytes_out;
};
/* Looks from time to time whether a group that is off the configuration still has a local program; one whose link has
 * been away for connect_timeout gives up without. */
void fwd_session_watch_forsaken(struct fwd_group *g);
/* Starts what the group needs, ends what nobody needs. */
void fwd_session_adjust(void *group);
/* In order: the far end and the API are told. */
void fwd_session_end(struct fwd_session *s, const char *why);
/* At once, without a word. */
void fwd_session_free(struct fwd_session *s);
uint64_t fwd_session_resent(const struct fwd_session *s); /* messages that it sent again */

static inline bool fwd_session_up(const struct fwd_session *s) /* takes streams now */
{
	return td_client_state(s->client) == TD_CLIENT_UP;
}
static inline size_t fwd_session_load(const struct fwd_session *s)
{
	struct td_pump *p = td_client_pump(s->client);
	return p ? td_pump_pipes(p) : 0;
}

/* What makes it busy: a connection that only waits for its FIN to go does not. */
static inline size_t fwd_session_busy(const struct fwd_session *s)
{
	return fwd_session_load(s) - s->holding;
}

/* --- reverse tunnels ------------------------------------------------------------------------ */

static inline bool fwd_tunnel_is_reverse(const struct fwd_tunnel *t)
{
	return t->cfg->type == TD_TUNNEL_REVERSE;
}
/* Asks the agent to listen, if there is a session; to listen no more. */
void fwd_reverse_start(struct fwd_tunnel *t);
void fwd_reverse_stop(struct fwd_tunnel *t);
void fwd_reverse_again(struct fwd_tunnel *t); /* after a pause; asks for a session as well */
void fwd_reverse_drop(struct fwd_tunnel *t);  /* the tunnel goes: what is still being dialed is refused */
/* What happens on its session. false: it is of no use, end it. */
bool fwd_reverse_ready(struct fwd_session *s, const struct tnl_session_info *info);
bool fwd_reverse_word(struct fwd_session *s, const struct tnl_reverse *word);
void fwd_reverse_open(struct fwd_session *s, struct tnl_stream *st);
void fwd_reverse_cancelled(struct fwd_session *s, struct tnl_stream *st);
void fwd_reverse_forget(struct fwd_session *s); /* it goes */

/* --- groups --------------------------------------------------------------------------------- */

struct fwd_group {
	struct tnl_list node; /* forwarder->groups */
	struct td_forwarder *f;
	const struct td_tunnel_config *cfg; /* of the tunnel that made it; all of the group are alike */
	const struct td_config *owner;	    /* keeps cfg alive */
	struct td_aws *aws;
	const struct td_aws_config *aws_cfg; /* that it was made from: changes with a reload */
	const struct td_config *aws_owner;   /* keeps aws_cfg alive */
	int refs;			     /* tunnels */
	struct fwd_proxy *proxy;	     /* whose it is alone; NULL: no proxy's */
	struct tnl_list dest;		     /* proxy->dests; else it is the proxy's own one */
	struct td_tunnel_config *own_cfg;    /* of a destination */
	void (*adjust_fn)(void *group);
	bool asked;	    /* a session was asked for by hand */
	uint64_t used_at;   /* a connection of a program came or went last, or the session was asked for; 0: never */
	uint64_t idle_at;   /* since when it has had no session */
	uint64_t failed_at; /* since when none could be started; 0: the last start succeeded */
	bool needs_login;   /* only a person can renew the credentials */
	struct tnl_list sessions, waiting;
	struct td_soon serve, adjust;
	struct td_timer restart;  /* serve, after a back-off */
	struct td_timer forsaken; /* no tunnel of the configuration is left, and the way to the gateway is away */
	struct td_backoff backoff;
	uint64_t lost_at; /* a session's link was lost or had just come back, or it is over; 0: one has come up since */
	char last_error[256];
	struct { /* while those who wait are told of it: why no session came */
		int err;
		char type[96];
	} refusal;
	struct { /* since the group is there, of all its sessions */
		uint64_t resumes, resent, outage_ns, out_since;
		struct tnl_histogram start; /* StartSession → ready */
	} n;
};
/* The one that fits, or a new one whose sessions `adjust` starts and ends.  NULL: *why. */
struct fwd_group *fwd_group_get(struct td_forwarder *f, const struct td_config *owner, const struct td_tunnel_config *t,
				void (*adjust)(void *group), char *why, size_t cap);
/* All of its sessions call with these from now on. */
void fwd_group_renew(struct fwd_group *g, struct td_aws *aws, const struct td_aws_config *conf,
		     const struct td_config *owner);
/* For one destination of a proxy; it goes when it is not used any more.  NULL: *why. */
struct fwd_group *fwd_group_new_dest(struct fwd_proxy *p, const char *host, uint16_t port, char *why, size_t cap);
static inline bool fwd_group_is_dest(const struct fwd_group *g)
{
	return g->own_cfg != NULL;
}
/* Is the tunnel one of those that it is for? */
static inline bool fwd_group_is_for(const struct fwd_group *g, const struct fwd_tunnel *t)
{
	return t->group == g || (g->proxy && g->proxy->t == t);
}
bool fwd_group_fits_aws(const struct fwd_group *g, const struct td_aws_config *conf);
bool fwd_group_off_config(const struct fwd_group *g); /* each of its tunnels only waits for its connections */
/* A tunnel lets go. */
void fwd_group_put(struct fwd_group *g);
/* Now, or when a session is there. */
void fwd_group_place(struct fwd_group *g, struct fwd_conn *c);
/* Places who waits; asks for a session where one more is needed. */
void fwd_group_serve(struct fwd_group *g);
/* Does any tunnel or connection still want its sessions? */
bool fwd_group_wanted(const struct fwd_group *g);
bool fwd_group_needs_session(const struct fwd_group *g);
/* No session will come: who can be placed is, the others are reset unless one is resuming. */
void fwd_group_fail(struct fwd_group *g, const char *why);
/* A start was refused and may be tried again: who waits takes what there is.  Does anybody need it still? */
bool fwd_group_needs_retry(struct fwd_group *g);
/* A session of the group, or any to its target, is resuming or was lost within the group's connect_timeout. */
bool fwd_group_recovering(const struct fwd_group *g);
bool fwd_target_recovering(const struct fwd_group *g);
/* One of its sessions has gone: is it still needed? */
void fwd_group_settle(struct fwd_group *g);
/* Why it has no session that is up, "" when that is not known.  Borrowed until the next turn. */
const char *fwd_group_trouble(const struct fwd_group *g);
bool fwd_group_opens_by_itself(const struct fwd_group *g);

/* --- connections ---------------------------------------------------------------------------- */

/* Who has made a connection that is no local program's, and hears of it: failed and closed are the last. */
struct fwd_conn_watch {
	void (*placed)(void *ctx);
	void (*connected)(void *ctx);
	void (*failed)(void *ctx, enum fwd_failure kind, const char *why);
	void (*closed)(void *ctx, uint32_t reason, const char *text);
};
/* An accepted local connection, from accept to close. */
struct fwd_conn {
	struct tnl_list node; /* group->waiting while fd >= 0, then tunnel->conns */
	struct fwd_tunnel *tunnel;
	struct fwd_session *session; /* that it is placed on or that was started for it alone */
	int fd;
	struct td_pipe *pipe;
	struct fwd_guest *guest; /* whose input and output it is; NULL: fd is an accepted socket */
	uint64_t accepted_at;
	bool holding; /* its program has gone, and a FIN to a stock agent waits for an answer that may still come */
	struct td_timer patience; /* connect_timeout; whose connection it is gives fn */
	char peer[TD_ADDR_STR];
	struct td_flow *flow;		  /* datagrams, in place of fd; the pipe's once there is one */
	void (*gone)(struct fwd_conn *c); /* it is about to go, for its owner; NULL: nobody wants to know */
	void *owner;
	uint8_t head[TNL_PROXYHEAD_LONGEST]; /* what the service is told of it first: a PROXY head */
	size_t head_len;
	struct tnl_head *to; /* a proxy's: where it goes; NULL: where the tunnel does */
	/* A proxy's: how its program is answered, then its socket is closed in order; NULL: it is reset. */
	td_pipe_answer_fn *answer;
	struct fwd_greet *greet;
	void (*drop_greet)(struct fwd_conn *c);
	struct fwd_group *group;	    /* in which it waits, or was placed */
	const struct fwd_conn_watch *watch; /* NULL: a local program's.  Others count in no number */
	void *watcher;
};
/* Takes fd.  NULL: no memory, it has been reset. */
struct fwd_conn *fwd_conn_new(struct fwd_tunnel *t, int fd, const struct td_addr *peer);
struct fwd_conn *fwd_conn_new_watched(struct fwd_tunnel *t, int fd, const struct fwd_conn_watch *watch, void *watcher);
/* On the guest's input and output, which stay its own. */
struct fwd_conn *fwd_conn_new_guest(struct fwd_tunnel *t, struct fwd_guest *guest);
void fwd_conn_placed(struct fwd_conn *c, struct fwd_session *s, struct td_pipe *p);
void fwd_conn_hold(struct fwd_conn *c);
/* These two free it.  One that waits is reset; the pipe of one that was placed has closed. */
void fwd_conn_fail(struct fwd_conn *c, enum fwd_failure kind, const char *why);
void fwd_conn_closed(struct fwd_conn *c, uint64_t in, uint64_t out);

/* --- one-shot commands that this daemon serves ------------------------------------------------ */

/* connect: its input and output are a connection.  exec and forward: connections of a socket of theirs, or just an open
 * tunnel. */
enum fwd_guest_kind { FWD_GUEST_CONNECT, FWD_GUEST_LISTEN, FWD_GUEST_USE };

struct fwd_guest {
	struct tnl_list node; /* forwarder->guests */
	struct td_forwarder *f;
	enum fwd_guest_kind kind;
	int fd; /* its connection to us; -1: it was told its end */
	ev_io io;
	int fds[2], flags[2];		    /* connect: what it gave us, and their status flags before */
	struct fwd_conn *conn;		    /* connect, until that is over */
	struct fwd_tunnel *tunnel;	    /* the others: whose session it waits for; NULL: gone */
	const struct fwd_session *bereaved; /* its connection went with this one, whose end is told soon */
	bool up, leaving, gone;		    /* told that it is up; it ends in order; it has ended */
	bool delayed;			    /* told that it takes longer */
	struct td_soon settle;
};
/* Takes fd and fds when it succeeds.  NULL: no memory. */
struct fwd_guest *fwd_guest_new(struct td_forwarder *f, enum fwd_guest_kind kind, int fd, const int *fds, int nfds,
				void (*settle)(void *guest));
void fwd_guest_free(struct fwd_guest *g);
void fwd_guest_taken(struct fwd_guest *g, const struct td_addr *listen, int n); /* it is served */
void fwd_guest_up(struct fwd_guest *g);
/* Told its end, once: "ok", "failed" (err and type of a start), "refused", "lost", "error", "sink" (err: errno).  Its
 * owner settles it. */
void fwd_guest_end(struct fwd_guest *g, const char *how, int err, const char *type, const char *text);
/* Its pipe has closed. */
void fwd_guest_conn_over(struct fwd_guest *g, struct fwd_session *s, const struct td_pipe *p, uint32_t reason);
/* Those who wait for the group's session; whose connection went with the session; whose tunnel goes. */
void fwd_guests_up(const struct fwd_group *g);
void fwd_guests_delayed(const struct fwd_group *g, const char *why); /* told once: it takes longer */
void fwd_guests_failed(const struct fwd_group *g, int err, const char *type, const char *why);
void fwd_guests_lost(const struct fwd_session *s, int err, const char *text);
void fwd_guests_forget(const struct fwd_tunnel *t);
/* A new configuration is in force. */
void fwd_one_shots_reload(struct td_forwarder *f);

/* --- ends of sessions ----------------------------------------------------------------------- */

/* Tells the API; the ledger forgets the session when that was heard. */
void fwd_ending_start(struct td_forwarder *f, struct td_aws *aws, const char *session_id);
void fwd_endings_cancel(struct td_forwarder *f);
/* Ends what an earlier run left behind. */
void fwd_ledger_open(struct td_forwarder *f, const char *state_dir);

#endif
