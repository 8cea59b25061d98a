/* Inside of the agent: control channel, sessions, what serves them, the notes of their ends.
 *
 *   control channel ── interactive_shell → ag_session ── data channel → pump ── streams → plugin
 *                   ← agent_task_complete ── ag_task ←── end
 *
 *   session:  new → opening → up → (lost) waiting → opening → up …
 *                                  any → ending (≤ 2 s for acks) → gone, its ag_task remains
 *   agent:    running → draining (→ cut) → drained
 *
 * The files, from the top down.  Each calls only those below it; upwards go what was handed in at creation (a callback,
 * the table of session types) and td_agent.settle, which is asked for and runs later.
 *
 *   agent      set up, reload, drain; what serves which type of session
 *   status     what it shows
 *   info       UpdateInstanceInformation
 *   control    the control channel: starts, ends, confirmations
 *   port       what serves Port sessions                         access   allow and deny
 *   udp        its flows of datagrams
 *   shell      what serves shells and commands                   spawn    their processes
 *   session    one session from its start to its end
 *   direct     the port of direct links, and tickets for it      audit    what the audit log has
 *   reverse    listeners of clients, and their connections
 *   kms        its half of the key exchange
 *   task       the ends that the gateway has not confirmed
 *   channel    how both kinds of channel come up */
#ifndef TD_AGENT_INTERNAL_H
#define TD_AGENT_INTERNAL_H
#include "lib/enc.h"
#include "lib/list.h"
#include "lib/map.h"
#include "tunneld/agent/access.h"
#include "tunneld/agent/agent.h"
#include "tunneld/aws/aws.h"
#include "tunneld/aws/channel_link.h"
#include "tunneld/base/ledger.h"
#include "tunneld/base/memory.h"
#include "tunneld/net/direct_port.h"
#include "tunneld/pump/pump.h"

#define AG_MOD "agent"
#define AG_SUCCESS "Success"
#define AG_FAILED "Failed"

struct ag_session;

/* --- opening a channel: create call → credentials → WebSocket → token frame ---------------- */

struct ag_channel_result {
	struct td_wslink *w; /* the open link, the receiver's from now on; NULL: failed */
	bool over;	     /* the gateway knows the session as ended */
	bool refused;	     /* it was a clear no and no trouble on the way */
	const char *why;
};
typedef void ag_channel_fn(void *ctx, const struct ag_channel_result *r);

struct ag_channel {
	struct td_agent *a;
	struct td_aws *aws;	/* a reference while it is going on */
	const char *session_id; /* NULL: control channel */
	unsigned link_number;	/* of the session's links; 0: the main one */
	struct td_aws_call *call;
	char at[TD_ENDPOINT_TEXT]; /* whose token it has: the endpoint that answered last */
	struct td_channel_link *link;
	struct td_soon no_memory; /* the call could not even be made */
	ag_channel_fn *fn;
	void *ctx;
};
void ag_channel_init(struct ag_channel *c, struct td_agent *a, const char *session_id, ag_channel_fn *fn, void *ctx);
/* fn comes from the loop, once, unless cancelled. */
void ag_channel_open(struct ag_channel *c);
void ag_channel_cancel(struct ag_channel *c);

/* --- ends of sessions ---------------------------------------------------------------------- */

/* The ends that the gateway has not confirmed yet. */
struct ag_tasks {
	struct td_agent *a;
	struct tnl_list list;	/* ag_task.node, the oldest first */
	struct td_wslink *link; /* the control channel while it is up, borrowed */
	/* An end that is confirmed or given up, called before it leaves the list. */
	void (*settled)(struct td_agent *a, const char *session_id);
};
struct ag_task {
	struct tnl_list node;
	struct ag_tasks *all;
	char *session_id, *status, *output;
	uint8_t message_id[16];
	int tries;
	struct td_timer timer;
};
void ag_tasks_init(struct ag_tasks *t, struct td_agent *a, void (*settled)(struct td_agent *a, const char *session_id));
/* All are said on w; NULL: the control channel is down, they wait. */
void ag_tasks_link(struct ag_tasks *t, struct td_wslink *w);
void ag_tasks_add(struct ag_tasks *t, const char *session_id, const char *status, const char *output);
void ag_tasks_confirm(struct ag_tasks *t, const char *message_id);
bool ag_tasks_pending(const struct ag_tasks *t, const char *session_id);
void ag_tasks_fini(struct ag_tasks *t);

/* --- sessions ------------------------------------------------------------------------------ */

/* What a session does with its streams. All called from the loop; unused ones may be NULL. */
struct ag_plugin {
	/* Why it serves nobody at this agent, NULL: it does. */
	const char *(*off)(const struct td_agent *a);
	/* Before anything is sent: reads the properties. false: *why goes into the task's Output. */
	bool (*init)(struct ag_session *s, char *why, size_t cap);
	void (*open)(struct ag_session *s, struct tnl_stream *st);
	void (*cancelled)(struct ag_session *s, struct tnl_stream *st);
	void (*size)(struct ag_session *s, unsigned cols, unsigned rows);
	/* The local source has ended, all of it is sent. */
	void (*drained)(struct ag_session *s, struct td_pipe *p);
	void (*pipe_closed)(struct ag_session *s, struct td_pipe *p, void *user, uint32_t reason, uint64_t in,
			    uint64_t out);
	/* Connections are all that a drain waits for; how many there are. */
	size_t (*busy)(const struct ag_session *s);
	/* Lets go of everything; the pump may be gone after it. */
	void (*fini)(struct ag_session *s);
};
extern const struct ag_plugin ag_port_plugin, ag_shell_plugin;

/* What serves a type of session. */
struct ag_type {
	const char *name; /* SessionType of the document */
	const struct ag_plugin *plugin;
	bool properties; /* the client hears of the document's properties in the handshake */
	bool terminal;	 /* bytes of a terminal; without encryption there is no handshake */
	bool command;	 /* the document has to name a command */
};

/* What a session may have so many of in a second; more: of lines of the audit log, which then has a number. */
struct ag_lines {
	uint64_t second, more;
	unsigned n;
};
bool ag_lines_admit(struct ag_lines *l, unsigned most, uint64_t now);

/* --- listeners of clients --------------------------------------------------------------------- */

struct ag_reverse { /* of one session */
	struct tnl_list listeners;
	unsigned count;
	struct tnl_map *incoming; /* connections that they took */
	bool client_away, stopped;
	uint64_t search_at; /* for a free port of those that may be bound: not before */
	struct ag_lines begun, refused;
	struct td_memory_waiter room;
};
void ag_reverse_init(struct ag_session *s); /* `incoming` NULL: no memory */
void ag_reverse_fini(struct ag_session *s);
void ag_reverse_word(struct ag_session *s, const struct tnl_reverse *word);
void ag_reverse_publication(struct ag_session *s, bool started); /* the gateway says whether the client is there */
void ag_reverse_look(struct ag_session *s);			 /* links came or went: do its listeners accept? */
void ag_reverse_stop(struct ag_session *s); /* no more connections, ever; those that are there stay */
/* false: it is none of a listener's. */
bool ag_reverse_pipe_closed(struct ag_session *s, const struct td_pipe *p, void *user, uint32_t reason, uint64_t in,
			    uint64_t out);
void ag_reverse_reload(struct td_agent *a);
void ag_reverse_put(const struct ag_session *s, struct tnl_jw *w);

/* --- direct links ----------------------------------------------------------------------------- */

struct ag_ticket {			/* of one session; the newest is the only one */
	char name[TNL_DIRECT_NAME + 1]; /* "": none */
	uint8_t secret[TNL_DIRECT_SECRET];
	uint64_t until;
	bool used; /* a ClientHello has named it: not a second time */
};
/* A port as the configuration says: 0 (also when it says none), or -1 and *why, and all is as before. */
int ag_direct_setup(struct td_agent *a, const struct td_agent_config *c, char *why, size_t cap);
void ag_direct_fini(struct td_agent *a);
void ag_direct_word(struct ag_session *s, const struct tnl_direct *d); /* of its client */

enum ag_session_state { AG_S_WAITING, AG_S_OPENING, AG_S_UP, AG_S_ENDING };

/* Further links of a session (links.c). */
struct ag_link_opening { /* of one */
	struct ag_session *s;
	struct ag_channel channel;
};
struct ag_links {
	unsigned want;					/* in all, the main one included */
	struct ag_link_opening *opening[TD_PUMP_LINKS]; /* NULL: it is not */
	struct td_timer timer;
};

struct ag_session {
	struct tnl_list node; /* agent->sessions */
	struct td_agent *a;
	struct tnl_start start;
	char *target; /* our name when it began, for the encryption context */
	enum ag_session_state state;
	const struct ag_type *type;
	struct td_pump *pump;
	struct ag_channel channel;
	struct ag_links more;
	struct td_timer retry, end_timer;
	struct td_backoff backoff;
	uint64_t progress; /* td_pump_progress when the link came */
	uint64_t link_up_at, started_at, refused_since, warned_at, end_by;
	enum tnl_session_mode mode;
	const char *status; /* of the end */
	char output[512];
	struct td_aws_call *kms;
	unsigned resumes;
	struct ag_ticket ticket;
	struct ag_reverse reverse;
	struct ag_lines refused;
	/* the Port plugin's */
	struct tnl_map *dialing;   /* stream → ag_stream: dials and resolutions under way */
	struct tnl_list connected; /* ag_stream.node */
	struct tnl_head to;	   /* where its streams go, unless they say otherwise */
	void *data;		   /* another plugin's */
};
/* Takes what start holds, unless the session is refused or known. */
void ag_session_start(struct td_agent *a, struct tnl_start *start);
struct ag_session *ag_session_find(const struct td_agent *a, const char *id);
/* Ends it in order: acks are awaited for up to 2 s, the link is closed, the gateway hears of it. Nothing of that inside
 * the call: always from the loop. */
void ag_links_init(struct ag_session *s);
void ag_links_want(struct ag_session *s, unsigned want);
void ag_links_bulk(struct ag_session *s, enum td_bulk kind); /* the client hears whether more would help */
void ag_links_lost(struct ag_session *s, unsigned index);
void ag_links_cancel(struct ag_session *s); /* those that are open stay */
void ag_session_end(struct ag_session *s, const char *status, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void ag_session_closed_by_gateway(struct ag_session *s, const char *output);
void ag_session_limit(struct ag_session *s); /* max_streams, as it is configured now */
/* At once, without a word. */
void ag_session_free(struct ag_session *s);
/* After a reload: a data channel that waits for another try is tried at once. */
void ag_session_retry(struct ag_session *s);
/* The machine slept. */
void ag_session_wake(struct ag_session *s);
const char *ag_session_state_name(const struct ag_session *s);
/* Ends those without connections, all: those with some, too. */
void ag_sessions_drain(struct td_agent *a, bool all);

/* audit.c.  refused: why, NULL: it was not. */
void ag_audit_start(struct td_agent *a, const struct tnl_start *start, const char *refused);
void ag_audit_end(struct ag_session *s, uint64_t received, uint64_t sent);
void ag_audit_connection(struct ag_session *s, const struct tnl_head *to, uint32_t stream, const char *address,
			 const char *refused);
void ag_audit_connection_end(const struct ag_session *s, const struct tnl_head *to, const char *how, uint64_t in,
			     uint64_t out);

/* Of listeners: event listen or listen-end. */
void ag_audit_listen(const struct ag_session *s, const char *event, const char *bind, const char *text);
void ag_audit_listen_refused(struct ag_session *s, const char *bind, const char *why);
void ag_audit_incoming(const struct ag_session *s, const char *bind, const char *peer, uint32_t stream);
void ag_audit_incoming_end(const struct ag_session *s, const char *bind, const char *peer, const char *how, uint64_t in,
			   uint64_t out);

void ag_kms_request(struct ag_session *s, const struct tnl_kms_request *r);

/* --- datagrams ------------------------------------------------------------------------------- */

#define AG_UDP_QUEUE (256u * 1024) /* of a flow, towards its client */
struct ag_udp;
/* session: its id, which stays.  NULL: no memory, or errno. */
struct ag_udp *ag_udp_open(struct td_agent *a, const char *session, const struct td_addr *to);
/* false: no memory; then it may only be freed. */
bool ag_udp_join(struct ag_udp *u, struct td_pump *pump, struct tnl_stream *st, void *user);
void ag_udp_note_dropped(struct ag_udp *u); /* while its pipe is there */
void ag_udp_free(struct ag_udp *u);

/* --- control channel ----------------------------------------------------------------------- */

enum ag_control_state { AG_CTL_DOWN, AG_CTL_OPENING, AG_CTL_UP };

struct ag_control {
	enum ag_control_state state;
	struct ag_channel channel;
	struct td_wslink *link;
	struct td_timer retry;
	struct td_backoff backoff;
	uint64_t up_at, warned_at;
	char last_error[200];
	bool bad_logged, odd_logged, job_logged;
};
void ag_control_init(struct td_agent *a);
void ag_control_start(struct td_agent *a);
void ag_control_stop(struct td_agent *a);
/* Another endpoint or identity. */
void ag_control_restart(struct td_agent *a);
/* The machine slept. */
void ag_control_wake(struct td_agent *a);
bool ag_control_is_up(const struct td_agent *a);

/* --- the agent ----------------------------------------------------------------------------- */

struct ag_info;
struct ag_info *ag_info_new(struct td_agent *a);
/* Another endpoint or identity. */
void ag_info_restart(struct ag_info *i);
void ag_info_free(struct ag_info *i);

/* cut: a second drain, it is over whatever is left. */
enum ag_state { AG_RUNNING, AG_DRAINING, AG_CUT, AG_DRAINED };

struct td_audit;
struct td_agent {
	struct td_audit *audit; /* NULL: none */
	struct td_loop *loop;
	const struct td_config *cfg;
	const struct ag_type *types; /* the last one has no name */
	char *instance_id;
	struct td_aws *aws;
	struct ag_control control;
	struct ag_info *info;
	struct td_ledger *ledger; /* sessions whose end is not confirmed */
	struct tnl_list sessions;
	unsigned nsessions, nlisteners;
	struct ag_tasks tasks;
	struct td_direct_port *direct; /* NULL: none */
	enum ag_state state;
	void (*done)(void *);
	void *done_ctx;
	struct td_soon settle; /* something has ended: is the drain over? */
	struct td_timer drain_timer;
	uint64_t drain_by, tasks_by;
	struct {
		uint64_t sessions, sessions_failed, refused, connections, dial_failures, denied, bad_messages,
		    ignored_messages, resumes, control_connects, tasks_sent, tasks_unconfirmed, short_of_descriptors,
		    direct_links, reverse_connections, reverse_failed, reverse_refused, datagrams_dropped,
		    names_refused;
	} n;
};
static inline const struct td_agent_config *ag_cfg(const struct td_agent *a)
{
	return &a->cfg->agent;
}

#endif
