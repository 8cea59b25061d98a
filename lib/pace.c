#include "lib/pace.h"

#include "lib/num.h"

#define NS 1000000000ull
#define BURST_PARTS 10u /* of what a second brings: what is saved for later at most */
#define SLICE_PARTS 64u
#define SLICE_LEAST ((uint64_t)1024)
#define SLICE_MOST ((uint64_t)65536)

static struct tnl_pace_turn *of(const struct tnl_turn *t)
{
	return tnl_container_of(t, struct tnl_pace_turn, turn);
}

static bool is_waiting(const struct tnl_turn *t)
{
	return of(t)->waits;
}

static int64_t most_credit(const struct tnl_pace *p)
{
	return (int64_t)TNL_MAX(p->rate / BURST_PARTS, (uint64_t)p->slice);
}

void tnl_pace_init(struct tnl_pace *p, uint64_t rate, uint64_t now)
{
	p->rate = TNL_MIN(TNL_MAX(rate, UINT64_C(1)), TNL_PACE_MAX);
	p->slice = (size_t)TNL_MIN(TNL_MAX(p->rate / SLICE_PARTS, SLICE_LEAST), SLICE_MOST);
	p->credit = most_credit(p);
	p->filled_at = now;
	p->waiting = 0;
	tnl_turns_init(&p->turns, is_waiting);
}

void tnl_pace_turn_init(struct tnl_pace_turn *t)
{
	tnl_turn_init(&t->turn);
	t->granted = 0;
	t->waits = false;
}

/* What it takes to bring so many bytes, rounded up. */
static uint64_t time_for(const struct tnl_pace *p, uint64_t bytes)
{
	return bytes / p->rate * NS + (bytes % p->rate * NS + p->rate - 1) / p->rate;
}

/* Only whole bytes' worth of time is taken, so that nothing is lost to rounding however often it is called. */
static void fill(struct tnl_pace *p, uint64_t now)
{
	int64_t most = most_credit(p);
	uint64_t lacking = p->credit < most ? (uint64_t)(most - p->credit) : 0;

	if (now <= p->filled_at)
		return;
	if (now - p->filled_at >= time_for(p, lacking)) {
		p->credit = TNL_MAX(p->credit, most);
		p->filled_at = now;
		return;
	}
	/* It is less than a burst and a slice: nothing overflows at up to TNL_PACE_MAX bytes a second. */
	uint64_t bytes = (now - p->filled_at) * p->rate / NS;
	p->credit += (int64_t)bytes;
	p->filled_at += time_for(p, bytes);
}

static void give(struct tnl_pace *p, struct tnl_pace_turn *t)
{
	t->granted = p->slice;
	p->credit -= (int64_t)p->slice;
}

static void wait_turn(struct tnl_pace *p, struct tnl_pace_turn *t)
{
	t->waits = true;
	p->waiting++;
	tnl_turns_join(&p->turns, &t->turn); /* one that has just had its turn is still in the round */
}

size_t tnl_pace_may(struct tnl_pace *p, struct tnl_pace_turn *t, uint64_t now)
{
	if (t->granted || t->waits)
		return t->granted;
	fill(p, now);
	if (p->waiting == 0 && p->credit > 0)
		give(p, t);
	else
		wait_turn(p, t);
	return t->granted;
}

void tnl_pace_use(struct tnl_pace_turn *t, size_t n)
{
	t->granted -= n;
}

static void stop_waiting(struct tnl_pace *p, struct tnl_pace_turn *t)
{
	if (t->waits)
		p->waiting--;
	t->waits = false;
}

void tnl_pace_rest(struct tnl_pace *p, struct tnl_pace_turn *t)
{
	p->credit += (int64_t)t->granted;
	t->granted = 0;
	stop_waiting(p, t);
	tnl_turns_leave(&t->turn);
}

uint64_t tnl_pace_due(const struct tnl_pace *p)
{
	if (p->waiting == 0)
		return UINT64_MAX;
	return p->credit > 0 ? p->filled_at : p->filled_at + time_for(p, (uint64_t)(1 - p->credit));
}

struct tnl_pace_turn *tnl_pace_next(struct tnl_pace *p, uint64_t now)
{
	fill(p, now);
	if (p->credit <= 0)
		return NULL;
	struct tnl_turn *turn = tnl_turns_next(&p->turns);
	if (!turn)
		return NULL;
	struct tnl_pace_turn *t = of(turn);
	stop_waiting(p, t);
	tnl_turn_charge(turn, p->slice);
	give(p, t);
	return t;
}
