/* How fast pipes may move bytes, when a pace is shared by them: out is from local programs, in is to them. */
#include "tunneld/pump/internal.h"

#include "lib/alloc.h"

struct one_way {
	struct tnl_pace pace;
	struct td_timer due;
};

struct td_pace {
	struct td_loop *loop;
	struct one_way way[2];
};

static void set_timer(struct one_way *w)
{
	td_timer_at(&w->due, tnl_pace_due(&w->pace));
}

static void go_out(struct tnl_pace_turn *t)
{
	struct td_pipe *p = tnl_container_of(t, struct td_pipe, paced[TD_PACE_OUT]);
	if (p->st)
		tnl_stream_want_send(p->st, true);
	td_pump_kick(p->pump);
}

static void go_in(struct tnl_pace_turn *t)
{
	struct td_pipe *p = tnl_container_of(t, struct td_pipe, paced[TD_PACE_IN]);
	if (p->flow)
		td_flow_drain(p);
	else
		td_pipe_drain(p);
}

static void give_turns(struct td_pace *pace, enum td_pace_way way)
{
	struct one_way *w = &pace->way[way];
	struct tnl_pace_turn *t;
	while ((t = tnl_pace_next(&w->pace, pace->loop->now))) {
		if (way == TD_PACE_OUT)
			go_out(t);
		else
			go_in(t);
	}
	set_timer(w);
}

static void on_due_out(void *arg)
{
	give_turns(arg, TD_PACE_OUT);
}

static void on_due_in(void *arg)
{
	give_turns(arg, TD_PACE_IN);
}

struct td_pace *td_pace_new(struct td_loop *l, uint64_t bytes_per_second)
{
	struct td_pace *pace = tnl_calloc(1, sizeof(*pace));
	if (!pace)
		return NULL;
	pace->loop = l;
	for (int i = 0; i < 2; i++) {
		tnl_pace_init(&pace->way[i].pace, bytes_per_second, l->now);
		td_timer_init(&pace->way[i].due, l, i == TD_PACE_OUT ? on_due_out : on_due_in, pace);
	}
	return pace;
}

void td_pace_free(struct td_pace *pace)
{
	if (!pace)
		return;
	td_timer_stop(&pace->way[TD_PACE_OUT].due);
	td_timer_stop(&pace->way[TD_PACE_IN].due);
	tnl_free(pace);
}

void td_pipe_pace(struct td_pipe *p, struct td_pace *pace)
{
	p->pace = pace;
	for (int i = 0; i < 2; i++)
		tnl_pace_turn_init(&p->paced[i]);
}

size_t td_pipe_may(struct td_pipe *p, enum td_pace_way way)
{
	if (!p->pace)
		return SIZE_MAX;
	struct one_way *w = &p->pace->way[way];
	size_t may = tnl_pace_may(&w->pace, &p->paced[way], p->pace->loop->now);
	if (!may)
		set_timer(w);
	return may;
}

void td_pipe_moved(struct td_pipe *p, enum td_pace_way way, size_t n)
{
	if (p->pace)
		tnl_pace_use(&p->paced[way], n);
}

void td_pipe_rests(struct td_pipe *p, enum td_pace_way way)
{
	if (!p->pace)
		return;
	tnl_pace_rest(&p->pace->way[way].pace, &p->paced[way]);
	set_timer(&p->pace->way[way]);
}

bool td_pipe_waits(const struct td_pipe *p, enum td_pace_way way)
{
	return p->pace && p->paced[way].waits;
}
