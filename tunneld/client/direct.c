/* A client's direct link:  want → ticket → dial → the pump's → lost → back-off → want …  Everything but the link itself
 * goes over the gateway, and nothing of the session waits for it, unless `direct = only`. */
#include "tunneld/client/internal.h"

#include "tunneld/base/fd.h"
#include "tunneld/base/log.h"
#include "tunneld/base/memory.h"

#include <stdio.h>

#define DIAL_TIME (3 * TD_SEC)
#define ANSWER_TIME (5 * TD_SEC)
#define RETRY_MIN (1 * TD_SEC)
#define RETRY_MAX (300 * TD_SEC)

static bool is_only(const struct td_client *c)
{
	return c->cfg.session.direct == TNL_DIRECT_ONLY;
}

bool td_client_direct_carries(const struct td_client *c)
{
	return c->direct.state == TD_CLIENT_DIRECT_UP;
}

static void wait_to_ask(struct td_client *c, uint64_t ns)
{
	c->direct.state = TD_CLIENT_DIRECT_WAITING;
	td_timer_in(&c->direct.timer, ns);
}

/* With `only` a session that has never been up is given up; else it is tried again later. */
static void attempt_failed(struct td_client *c, int err, const char *why)
{
	char text[300];

	snprintf(c->direct.error, sizeof(c->direct.error), "%s", why);
	if (is_only(c) && !c->was_ready) {
		snprintf(text, sizeof(text), "direct = only, and the agent cannot be reached directly: %s", why);
		td_client_direct_stop(c);
		td_client_fail(c, err, "", text);
		return;
	}
	td_info(MOD, c->grant.session_id, "no direct link, trying again later %-s reason=\"%s\"", c->cfg.label, why);
	wait_to_ask(c, td_backoff_next(&c->direct.backoff));
}

static void ask(struct td_client *c)
{
	struct tnl_direct want = {.kind = TNL_DIRECT_WANT};

	if (!is_only(c) && (!td_memory_half_free() || td_fd_short())) {
		wait_to_ask(c, td_backoff_next(&c->direct.backoff));
		return;
	}
	c->direct.state = TD_CLIENT_DIRECT_ASKED;
	td_timer_in(&c->direct.timer, ANSWER_TIME);
	if (!td_pump_tell_direct(c->pump, &want))
		td_debug(MOD, c->grant.session_id, "no ticket can be asked for now");
}

static void on_timer(void *arg)
{
	struct td_client *c = arg;

	if (c->direct.state == TD_CLIENT_DIRECT_WAITING)
		ask(c);
	else if (c->direct.state == TD_CLIENT_DIRECT_ASKED)
		attempt_failed(c, TNL_ETIMEOUT, "the agent gave no ticket");
}

static void on_dialed(void *ctx, struct td_wslink *w, int err, const char *why)
{
	struct td_client *c = ctx;
	bool first = is_only(c) && !c->was_ready;

	c->direct.dial = NULL;
	if (w && !td_pump_direct_allowed(c->pump)) { /* not any more */
		td_wslink_free(w);
		w = NULL;
		err = TNL_EREFUSED;
		why = "the gateway does not permit it";
	}
	if (!w) {
		attempt_failed(c, err, why);
		return;
	}
	c->direct.state = TD_CLIENT_DIRECT_UP;
	c->direct.up_at = c->loop->now;
	c->direct.error[0] = 0;
	td_info(MOD, c->grant.session_id, "direct link is up %-s peer=%s", c->cfg.label, td_wslink_peer(w));
	td_pump_attach_direct(c->pump, w);
	if (first)
		td_client_tell_ready(c);
	else
		td_client_set_state(c, TD_CLIENT_UP);
}

static void dial(struct td_client *c, const struct tnl_direct_ticket *t)
{
	struct td_wslink_opts o = {.ping_ns = c->cfg.ping_ns, .pong_ns = c->cfg.pong_ns};

	td_timer_stop(&c->direct.timer);
	c->direct.state = TD_CLIENT_DIRECT_DIALING;
	c->direct.dial = td_direct_dial_start(c->loop, t, DIAL_TIME, &o, on_dialed, c);
	if (!c->direct.dial)
		attempt_failed(c, TNL_ENOMEM, "out of memory");
}

static bool is_agreed(const struct td_client *c)
{
	return c->pump && tnl_session_info(td_pump_session(c->pump))->direct != TNL_DIRECT_NO;
}

static void give_up(struct td_client *c)
{
	td_client_direct_stop(c);
	td_pump_detach_direct(c->pump);
	if (is_only(c) && !c->was_ready && c->state != TD_CLIENT_ENDING)
		td_client_fail(c, TNL_EREFUSED, "", "direct = only, and the gateway does not permit a direct link");
}

static void take_policy(struct td_client *c, bool allow)
{
	bool handshake_done = tnl_session_state(td_pump_session(c->pump)) == TNL_SS_READY;

	if (!handshake_done || !is_agreed(c))
		return;					      /* it is looked at then */
	if (!allow && c->direct.state != TD_CLIENT_DIRECT_UP) /* else that it is gone is told next */
		give_up(c);
	else if (allow && c->direct.state == TD_CLIENT_DIRECT_OFF)
		ask(c);
}

void td_client_direct_word(struct td_client *c, const struct tnl_direct *d)
{
	if (c->state == TD_CLIENT_ENDING)
		return;
	if (d->kind == TNL_DIRECT_POLICY)
		take_policy(c, d->allow);
	else if (d->kind == TNL_DIRECT_TICKET && c->direct.state == TD_CLIENT_DIRECT_ASKED)
		dial(c, &d->ticket);
}

bool td_client_direct_ready(struct td_client *c)
{
	bool agreed = is_agreed(c), allowed = td_pump_direct_allowed(c->pump);

	if (agreed && allowed) {
		ask(c);
		return !is_only(c);
	}
	if (!is_only(c))
		return true;
	td_client_fail(c, TNL_EREFUSED, "",
		       agreed ? "direct = only, and the gateway does not permit a direct link"
			      : "direct = only, and the agent offers no direct link (direct_listen)");
	return false;
}

void td_client_direct_lost(struct td_client *c, int err, const char *why)
{
	if (c->state == TD_CLIENT_ENDING || c->direct.state == TD_CLIENT_DIRECT_OFF)
		return;
	td_warn(MOD, c->grant.session_id, "direct link is gone %-s error=\"%s\" reason=\"%s\"", c->cfg.label,
		tnl_err_text(err), why);
	snprintf(c->direct.error, sizeof(c->direct.error), "%s", why);
	td_backoff_up(&c->direct.backoff, c->loop->now - c->direct.up_at);
	if (!td_pump_link(c->pump) || is_only(c))
		td_client_set_state(c, TD_CLIENT_RESUMING);
	if (td_pump_direct_allowed(c->pump))
		wait_to_ask(c, td_backoff_next(&c->direct.backoff));
	else
		td_client_direct_stop(c);
}

void td_client_direct_init(struct td_client *c)
{
	td_timer_init(&c->direct.timer, c->loop, on_timer, c);
	td_backoff_init(&c->direct.backoff, RETRY_MIN, RETRY_MAX);
}

void td_client_direct_stop(struct td_client *c)
{
	td_timer_stop(&c->direct.timer);
	td_direct_dial_cancel(c->direct.dial);
	c->direct.dial = NULL;
	c->direct.state = TD_CLIENT_DIRECT_OFF;
}
