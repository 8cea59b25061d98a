/* The sockets of a forward that a daemon serves: one one-shot command each. */
#include "tunneld/command/forward_served.h"

#include "lib/alloc.h"
#include "tunneld/command/one_shot.h"
#include "tunneld/forwarder/forwarder.h"
#include "tunneld/net/listen.h"

#include <stdio.h>
#include <unistd.h>

enum { SOCKETS_MAX = 128 };

struct td_forward_served {
	struct td_foreground *fg;
	struct {
		struct td_one_shot *o; /* NULL: it has ended */
		struct td_addr addr;
	} socket[SOCKETS_MAX];
	int n;
	struct td_timer patience;
	bool over;
	void (*ended)(void *ctx, int code);
	void *ctx;
};

static void end(struct td_forward_served *s, int code)
{
	if (!s->over)
		s->ended(s->ctx, code);
	s->over = true;
}

/* In order when all have been told to finish; else the first one that fails ends it. */
static void on_ended(void *ctx, int code, bool gone)
{
	struct td_forward_served *s = ctx;
	bool left = false;
	for (int i = 0; i < s->n; i++)
		left = left || td_one_shot_is_served(s->socket[i].o);
	if (code != TD_EXIT_OK || !left)
		end(s, code);
}

static void out_of_patience(void *arg)
{
	end(arg, TD_EXIT_OK);
}

/* One socket, and the daemon has it. */
static bool hand_over(struct td_forward_served *s, const struct td_tunnel_config *t, const struct td_addr *a)
{
	static const struct td_one_shot_cb cb = {.ended = on_ended};
	char why[300];
	int fd = s->n < SOCKETS_MAX && !td_addr_given(a) ? td_listen_socket(a, why, sizeof(why)) : -1;
	const struct td_one_shot_wish w = {
	    .kind = "listen", .host = t->host, .port = t->port, .fds = &fd, .nfds = 1, .flags = {-1, -1}};
	struct td_one_shot *o = fd >= 0 ? td_one_shot_start(s->fg, &w, &cb, s) : NULL;
	if (fd >= 0)
		close(fd);
	if (fd >= 0 && !o && a->sa.sa_family == AF_UNIX)
		unlink(a->un.sun_path);
	if (!o)
		return false;
	s->socket[s->n].o = o;
	s->socket[s->n++].addr = *a;
	return true;
}

static bool hand_all_over(struct td_forward_served *s, const struct td_config *made)
{
	for (int i = 0; i < made->fwd.ntunnels; i++) {
		const struct td_tunnel_config *t = &made->fwd.tunnels[i];
		if (t->type != TD_TUNNEL_TCP)
			return false;
		for (int j = 0; j < t->naddrs; j++)
			if (!hand_over(s, t, &t->addrs[j]))
				return false;
	}
	return s->n > 0;
}

static void announce_all(const struct td_forward_served *s, const struct td_config *made)
{
	struct td_addr at;
	for (int i = 0, k = 0; i < made->fwd.ntunnels; i++)
		for (int j = 0; j < made->fwd.tunnels[i].naddrs; j++, k++)
			if (td_one_shot_addr(s->socket[k].o, 0, &at) == 0)
				td_forwarder_announce(&made->fwd.tunnels[i], s->fg->t->target, &at);
}

struct td_forward_served *td_forward_served_start(struct td_foreground *fg, const struct td_config *made,
						  void (*ended)(void *ctx, int code), void *ctx)
{
	struct td_forward_served *s = tnl_calloc(1, sizeof(*s));
	if (!s)
		return NULL;
	*s = (struct td_forward_served){.fg = fg, .ended = ended, .ctx = ctx};
	td_timer_init(&s->patience, fg->loop, out_of_patience, s);
	if (hand_all_over(s, made)) {
		announce_all(s, made);
		return s;
	}
	td_forward_served_free(s);
	return NULL;
}

void td_forward_served_finish(struct td_forward_served *s, uint64_t timeout_ns)
{
	for (int i = 0; i < s->n; i++)
		td_one_shot_finish(s->socket[i].o);
	td_timer_in(&s->patience, timeout_ns);
}

void td_forward_served_free(struct td_forward_served *s)
{
	if (!s)
		return;
	td_timer_stop(&s->patience);
	for (int i = 0; i < s->n; i++) {
		td_one_shot_free(s->socket[i].o);
		if (s->socket[i].addr.sa.sa_family == AF_UNIX)
			unlink(s->socket[i].addr.un.sun_path);
	}
	td_loop_free_later(s->fg->loop, s);
}
