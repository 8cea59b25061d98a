/* Further links of a session between our own ends (lib/channel.h): how many there are to be, and how each comes.
 *
 *   OpenSessionLink (a call of our gateway) → token → WebSocket → the pump's
 *
 * All are opened at once.  The agent hears of the number by a flag and opens as many.  With `links = auto` they
 * come when bulk has gone on for half a second, sooner and more of them where many streams have it or where TCP repairs
 * losses, fewer where many sessions have bulk at once (crowd.h), none where the path is full, and go when there was
 * none for a while.  Whether it is full knows the end that sends: the client itself, or the agent, who says so by a
 * flag; when that comes while they are being opened they are given up.  They do not come where a round trip is so short
 * that one TCP fills the path, whatever it loses: there they would only cost processor time.
 * A gateway that does not know the call is not asked again, one that can't answer it now is.  None is opened while less
 * than half of the process's memory is free. */
#include "tunneld/client/internal.h"

#include "lib/num.h"
#include "tunneld/base/fd.h"
#include "tunneld/base/memory.h"
#include "tunneld/base/log.h"

#include <string.h>

#define BULK_LINKS 4u
#define MOST_LINKS 8u
#define QUIET_FOR (10 * TD_SEC)
#define AGAIN_IN (1 * TD_SEC)
#define HASTE_MAX (15 * TD_SEC) /* between calls that come too soon for the gateway */
#define SHORT_PATH (2 * TD_MS)
#define FULL_FOR (1 * TD_SEC) /* after the last word of it */

static void open_missing(struct td_client *c);

static unsigned index_of(const struct td_client_opening *o)
{
	return (unsigned)(o - o->c->more.opening);
}

static void set_want(struct td_client *c, unsigned want)
{
	if (c->more.want == want)
		return;
	c->more.want = want;
	td_crowd_keep(&c->more.crowd, want > 1);
	td_debug(MOD, c->grant.session_id, "links wanted=%u %-s", want, c->cfg.label);
	tnl_session_send_flag(td_pump_session(c->pump), TNL_FLAG_LINKS | want, c->loop->now);
	td_pump_kick(c->pump);
}

static void close_all(struct td_client *c)
{
	td_client_links_cancel(c);
	set_want(c, 1);
	for (unsigned i = 1; i < TD_PUMP_LINKS; i++)
		td_pump_detach_link(c->pump, i);
}

static void give_up(struct td_client *c, const char *why)
{
	td_warn(MOD, c->grant.session_id, "further links are refused, one has to do %-s error=\"%s\"", c->cfg.label,
		why);
	c->more.refused = true;
	close_all(c);
}

static void try_later(const struct td_client_opening *o, const char *why)
{
	struct td_client *c = o->c;

	td_debug(MOD, c->grant.session_id, "further link=%u could not be opened, trying again %-s error=\"%s\"",
		 index_of(o), c->cfg.label, why);
	td_timer_in(&c->more.timer, AGAIN_IN);
}

static void on_link(void *ctx, const struct td_channel_link_result *r)
{
	struct td_client_opening *o = ctx;
	struct td_client *c = o->c;
	unsigned index = index_of(o);

	o->link = NULL;
	if (!r->w) {
		try_later(o, r->why);
		return;
	}
	td_backoff_forget(&c->more.backoff);
	td_pump_attach_link(c->pump, index, r->w);
	td_info(MOD, c->grant.session_id, "further link=%u is up %-s links=%u", index, c->cfg.label,
		td_pump_links(c->pump));
	open_missing(c);
}

static void dial(struct td_client_opening *o, const struct td_session_grant *g)
{
	struct td_client *c = o->c;
	char version[] = TNL_CLIENT_VERSION;
	struct tnl_open open = {.token = g->token, .client_id = c->client_id, .client_version = version};
	struct td_channel_link_opts opts = {.url = g->stream_url ? g->stream_url : c->grant.stream_url,
					    .open = &open,
					    .ping_ns = c->cfg.ping_ns,
					    .pong_ns = c->cfg.pong_ns};
	const char *fault = NULL;

	if (!td_aws_stream_url_ok(c->cfg.aws, opts.url, &fault)) {
		give_up(c, "the StreamUrl is refused (see stream_hosts)");
		return;
	}
	o->link = td_channel_link_open(c->cfg.aws, &opts, on_link, o);
	if (!o->link)
		try_later(o, "out of memory");
}

bool td_client_links_refused(const struct td_aws_reply *r)
{
	return r->err == TNL_EREFUSED && r->status < 500 && strcmp(r->type, "DoesNotExistException") != 0 &&
	       !td_aws_throttled(r->type);
}

static void on_token(void *ctx, const struct td_aws_reply *r)
{
	struct td_client_opening *o = ctx;
	struct td_client *c = o->c;
	struct td_session_grant g = {0};

	o->call = NULL;
	if (td_client_links_refused(r)) {
		give_up(c, r->type);
		return;
	}
	if (r->err) {
		try_later(o, r->text ? r->text : tnl_err_text(r->err));
		if (td_aws_throttled(r->type) || r->status >= 500)
			c->more.not_before = c->loop->now + td_backoff_next(&c->more.backoff);
		return;
	}
	if (td_session_grant_parse(r->json, &g) == 0 && g.token && g.token[0])
		dial(o, &g);
	else
		try_later(o, "the answer lacks TokenValue");
	td_session_grant_fini(&g);
}

static bool is_opening(const struct td_client_opening *o)
{
	return o->call || o->link;
}

static void open_missing(struct td_client *c)
{
	struct td_client_links *m = &c->more;

	if (m->refused || !td_pump_links(c->pump) || c->loop->now < m->not_before)
		return;
	if (!td_memory_half_free() || td_fd_short())
		return;
	for (unsigned i = 1; i < m->want; i++) {
		struct td_client_opening *o = &m->opening[i];
		if (td_pump_link_at(c->pump, i) || is_opening(o))
			continue;
		o->call = td_session_link_call(c->cfg.aws, c->grant.session_id, i, on_token, o);
		if (!o->call)
			try_later(o, "out of memory");
	}
}

/* Something is missing, or it may be quiet. */
static void on_timer(void *arg)
{
	struct td_client *c = arg;
	uint64_t quiet = c->loop->now - c->more.bulk_at;

	if (c->cfg.links_auto && c->more.want > 1 && quiet >= QUIET_FOR) {
		close_all(c);
		return;
	}
	open_missing(c);
	if (c->more.want > 1)
		td_timer_in(&c->more.timer, AGAIN_IN);
}

static void want_at_least(struct td_client *c, unsigned n)
{
	const struct tnl_session_info *info = tnl_session_info(td_pump_session(c->pump));

	bool direct = td_client_direct_carries(c) || c->cfg.session.direct == TNL_DIRECT_ONLY;

	n = TNL_MIN(n, info->links);
	if (direct || n <= c->more.want || c->more.refused || c->state == TD_CLIENT_ENDING)
		return;
	set_want(c, n);
	open_missing(c);
	td_timer_in(&c->more.timer, AGAIN_IN);
}

void td_client_links_init(struct td_client *c)
{
	td_timer_init(&c->more.timer, c->loop, on_timer, c);
	td_backoff_init(&c->more.backoff, AGAIN_IN, HASTE_MAX);
	td_crowd_init(&c->more.crowd);
	for (unsigned i = 0; i < TD_PUMP_LINKS; i++)
		c->more.opening[i].c = c;
	c->more.want = 1;
}

void td_client_links_ready(struct td_client *c)
{
	if (!c->cfg.links_auto)
		want_at_least(c, TD_PUMP_LINKS);
}

/* By the least that was measured while this main link is up: bulk makes a queue of its own. */
static bool is_path_short(struct td_client *c)
{
	struct td_client_links *m = &c->more;
	struct tnl_channel_stats st;

	if (m->least_of != c->link_up_at)
		m->least_rtt = 0;
	m->least_of = c->link_up_at;
	tnl_channel_stats(tnl_session_channel(td_pump_session(c->pump)), &st);
	if (st.min_rtt_ns && (!m->least_rtt || st.min_rtt_ns < m->least_rtt))
		m->least_rtt = st.min_rtt_ns;
	return m->least_rtt && m->least_rtt < SHORT_PATH;
}

unsigned td_client_links_for(enum td_bulk kind, unsigned wanted, unsigned up, bool full, unsigned busy)
{
	unsigned help = busy > TD_BULK_FEW ? MOST_LINKS : BULK_LINKS;
	if (kind == TD_BULK_LOSSY)
		return TNL_MAX(wanted, MOST_LINKS);
	if (kind == TD_BULK_FULL) /* those that are up have a part in it already */
		return up <= 1 && wanted <= BULK_LINKS ? 1 : wanted;
	return full ? wanted : TNL_MAX(wanted, help);
}

void td_client_links_bulk(struct td_client *c, enum td_bulk kind)
{
	struct td_client_links *m = &c->more;

	m->bulk_at = c->loop->now;
	if (kind == TD_BULK_FULL)
		m->full_at = c->loop->now;
	if (!c->cfg.links_auto)
		return;
	bool full = m->full_at && c->loop->now - m->full_at < FULL_FOR;
	unsigned n = td_client_links_for(kind, m->want, td_pump_links(c->pump), full, td_pump_busy(c->pump));
	unsigned share = td_crowd_links(&m->crowd, c->cfg.aws, n, c->loop->now);
	if (is_path_short(c))
		return;
	if (n < m->want)
		close_all(c);
	else if (td_memory_half_free())
		want_at_least(c, share);
}

void td_client_links_lost(struct td_client *c, unsigned index)
{
	td_info(MOD, c->grant.session_id, "further link=%u lost, the session goes on %-s links=%u", index, c->cfg.label,
		td_pump_links(c->pump));
	if (!td_pump_links(c->pump) && !td_client_direct_carries(c) && c->state == TD_CLIENT_UP)
		td_client_set_state(c, TD_CLIENT_RESUMING); /* the main one is on its way back */
	td_timer_in(&c->more.timer, AGAIN_IN / 4);
}

void td_client_links_cancel(struct td_client *c)
{
	td_timer_stop(&c->more.timer);
	td_crowd_leave(&c->more.crowd);
	for (unsigned i = 0; i < TD_PUMP_LINKS; i++) {
		struct td_client_opening *o = &c->more.opening[i];
		if (o->call)
			td_aws_call_cancel(o->call);
		td_channel_link_cancel(o->link);
		o->call = NULL;
		o->link = NULL;
	}
}
