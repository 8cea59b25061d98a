/* Further links of a session between our own ends (lib/channel.h): how many there are to be, and how each comes.
 *
 *   OpenSessionLink (a call of our gateway) → token → WebSocket → the pump's
 *
 * One is opened at a time, the lowest number that is missing.  The agent hears of the number by a flag and opens as
 * many.  With `links = auto` they come when bulk has gone on for half a second and go when there was none for a while,
 * and not at all where a round trip is so short that one TCP fills the path, whatever it loses: there they would only
 * cost processor time.  A gateway that does not know the call is not asked again. */
#include "tunneld/client/internal.h"

#include "lib/num.h"
#include "tunneld/base/log.h"

#include <string.h>

#define QUIET_FOR (10 * TD_SEC)
#define AGAIN_IN (1 * TD_SEC)
#define SHORT_PATH (2 * TD_MS)

static void open_next(struct td_client *c);

static void set_want(struct td_client *c, unsigned want)
{
	if (c->more.want == want)
		return;
	c->more.want = want;
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

static void try_later(struct td_client *c, const char *why)
{
	td_debug(MOD, c->grant.session_id, "further link=%u could not be opened, trying again %-s error=\"%s\"",
		 c->more.opening, c->cfg.label, why);
	c->more.opening = 0;
	td_timer_in(&c->more.timer, AGAIN_IN);
}

static void on_link(void *ctx, const struct td_channel_link_result *r)
{
	struct td_client *c = ctx;
	unsigned index = c->more.opening;

	c->more.link = NULL;
	if (!r->w) {
		try_later(c, r->why);
		return;
	}
	td_pump_attach_link(c->pump, index, r->w);
	td_info(MOD, c->grant.session_id, "further link=%u is up %-s links=%u", index, c->cfg.label,
		td_pump_links(c->pump));
	c->more.opening = 0;
	open_next(c);
}

static void dial(struct td_client *c, const struct td_session_grant *g)
{
	char version[] = TNL_CLIENT_VERSION;
	struct tnl_open open = {.token = g->token, .client_id = c->client_id, .client_version = version};
	struct td_channel_link_opts o = {.url = g->stream_url ? g->stream_url : c->grant.stream_url,
					 .open = &open,
					 .ping_ns = c->cfg.ping_ns,
					 .pong_ns = c->cfg.pong_ns};
	const char *fault = NULL;

	if (!td_aws_stream_url_ok(c->cfg.aws, o.url, &fault)) {
		give_up(c, "the StreamUrl is refused (see stream_hosts)");
		return;
	}
	c->more.link = td_channel_link_open(c->cfg.aws, &o, on_link, c);
	if (!c->more.link)
		try_later(c, "out of memory");
}

static void on_token(void *ctx, const struct td_aws_reply *r)
{
	struct td_client *c = ctx;
	struct td_session_grant g = {0};

	c->more.call = NULL;
	if (r->err == TNL_EREFUSED && strcmp(r->type, "DoesNotExistException") != 0 && !td_aws_throttled(r->type)) {
		give_up(c, r->type);
		return;
	}
	if (r->err) {
		try_later(c, r->text ? r->text : tnl_err_text(r->err));
		return;
	}
	if (td_session_grant_parse(r->json, &g) == 0 && g.token && g.token[0])
		dial(c, &g);
	else
		try_later(c, "the answer lacks TokenValue");
	td_session_grant_fini(&g);
}

static void open_next(struct td_client *c)
{
	struct td_client_links *m = &c->more;
	unsigned i = 1;

	while (i < m->want && td_pump_link_at(c->pump, i))
		i++;
	if (i >= m->want || m->opening || m->refused || !td_pump_links(c->pump))
		return;
	m->opening = i;
	m->call = td_session_link_call(c->cfg.aws, c->grant.session_id, i, on_token, c);
	if (!m->call)
		try_later(c, "out of memory");
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
	open_next(c);
	if (c->more.want > 1)
		td_timer_in(&c->more.timer, AGAIN_IN);
}

static void want_all(struct td_client *c)
{
	const struct tnl_session_info *info = tnl_session_info(td_pump_session(c->pump));

	bool direct = td_client_direct_carries(c) || c->cfg.session.direct == TNL_DIRECT_ONLY;

	if (direct || info->links < 2 || c->more.refused || c->state == TD_CLIENT_ENDING)
		return;
	set_want(c, info->links);
	open_next(c);
	td_timer_in(&c->more.timer, AGAIN_IN);
}

void td_client_links_init(struct td_client *c)
{
	td_timer_init(&c->more.timer, c->loop, on_timer, c);
	c->more.want = 1;
}

void td_client_links_ready(struct td_client *c)
{
	if (!c->cfg.links_auto)
		want_all(c);
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

void td_client_links_bulk(struct td_client *c)
{
	c->more.bulk_at = c->loop->now;
	if (c->cfg.links_auto && c->more.want == 1 && !is_path_short(c))
		want_all(c);
}

void td_client_links_lost(struct td_client *c, unsigned index)
{
	td_info(MOD, c->grant.session_id, "further link=%u lost, the session goes on %-s links=%u", index, c->cfg.label,
		td_pump_links(c->pump));
	if (!td_pump_links(c->pump) && !td_client_direct_carries(c) && c->state == TD_CLIENT_UP)
		td_client_set_state(c, TD_CLIENT_RESUMING); /* the main one is on its way back */
	if (!c->more.opening)
		td_timer_in(&c->more.timer, AGAIN_IN / 4);
}

void td_client_links_cancel(struct td_client *c)
{
	td_timer_stop(&c->more.timer);
	if (c->more.call)
		td_aws_call_cancel(c->more.call);
	td_channel_link_cancel(c->more.link);
	c->more.call = NULL;
	c->more.link = NULL;
	c->more.opening = 0;
}
