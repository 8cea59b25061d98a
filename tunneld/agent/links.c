/* Further links of a session (lib/channel.h): the client says by a flag how many there are to be, and its agent opens
 * as many, one at a time, the lowest number that is missing.  What fails or breaks is tried again while the client
 * wants it. */
#include "tunneld/agent/internal.h"

#include "tunneld/base/log.h"

#define AGAIN_IN (1 * TD_SEC)

static void open_next(struct ag_session *s)
{
	struct ag_links *m = &s->more;
	unsigned i = 1;

	while (i < m->want && td_pump_link_at(s->pump, i))
		i++;
	if (i >= m->want || m->channel.link_number || s->state == AG_S_ENDING || !td_pump_links(s->pump))
		return;
	m->channel.link_number = i;
	ag_channel_open(&m->channel);
}

static void on_timer(void *arg)
{
	struct ag_session *s = arg;

	open_next(s);
	if (s->state != AG_S_ENDING && s->more.want > 1 && !td_pump_links(s->pump)) /* all are away: once one is back */
		td_timer_in(&s->more.timer, AGAIN_IN);
}

static void on_opened(void *ctx, const struct ag_channel_result *r)
{
	struct ag_session *s = ctx;
	unsigned index = s->more.channel.link_number;

	s->more.channel.link_number = 0;
	if (r->w) {
		td_pump_attach_link(s->pump, index, r->w);
		td_info(AG_MOD, s->start.session_id, "further link=%u is up links=%u", index, td_pump_links(s->pump));
		open_next(s);
		return;
	}
	td_debug(AG_MOD, s->start.session_id, "further link=%u could not be opened, trying again error=\"%s\"", index,
		 r->why);
	td_timer_in(&s->more.timer, AGAIN_IN);
}

void ag_links_init(struct ag_session *s)
{
	s->more.want = 1;
	ag_channel_init(&s->more.channel, s->a, s->start.session_id, on_opened, s);
	td_timer_init(&s->more.timer, s->a->loop, on_timer, s);
}

void ag_links_want(struct ag_session *s, unsigned want)
{
	td_debug(AG_MOD, s->start.session_id, "links wanted=%u", want);
	if (want < s->more.want)
		ag_links_cancel(s);
	s->more.want = want;
	for (unsigned i = want; i < TD_PUMP_LINKS; i++)
		td_pump_detach_link(s->pump, i);
	open_next(s);
}

void ag_links_lost(struct ag_session *s, unsigned index)
{
	td_info(AG_MOD, s->start.session_id, "further link=%u lost, the session goes on links=%u", index,
		td_pump_links(s->pump));
	td_timer_in(&s->more.timer, AGAIN_IN / 4);
}

void ag_links_cancel(struct ag_session *s)
{
	td_timer_stop(&s->more.timer);
	ag_channel_cancel(&s->more.channel);
	s->more.channel.link_number = 0;
}
