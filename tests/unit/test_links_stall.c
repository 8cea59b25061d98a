/* A bulk transfer over four links with rates, one of which stands still for good with bytes on it, in virtual time. The
 * queues before the rates are not seen by what is told of the hops, so that round trips grow to many times what the
 * timer of a quiet end knows; the other end sends small messages meanwhile, as a session opens the windows of its
 * streams. */
#include "tests/unit/cc_util.h"

#define LINKS 4u
#define MIB ((uint64_t)1 << 20)
#define BULK (40 * MIB)
#define AHEAD (12 * MIB) /* windows of streams */
#define RATE 4e6
#define FIRST 5u /* words before the bulk begins, so far apart */
#define QUIET (100 * MS)

struct stall_world {
	struct end a, b; /* bulk goes from a to b, words from b to a */
	struct pipe_model up[LINKS], down[LINKS];
	unsigned dead;
	uint64_t word; /* so often the receiver has something to say: the source may go on */
	uint64_t dead_at, now, sent, said, heard, over; /* over: when a had the last word */
	uint32_t rnd;
};

static uint64_t between(struct stall_world *w, uint64_t a, uint64_t b)
{
	w->rnd = w->rnd * 1664525u + 1013904223u;
	return a + (w->rnd >> 8) % (b - a + 1);
}

static void word_came(struct end *e, const struct tnl_msg *m, uint64_t now)
{
	struct stall_world *w = e->user;
	(void)m;
	w->heard++;
	if (w->heard == FIRST + BULK / w->word)
		w->over = now;
}

static void open_world(struct stall_world *w, unsigned seed)
{
	*w = (struct stall_world){.rnd = seed * 2654435761u};
	for (int i = 0; i < 5; i++)
		between(w, 0, 1);
	cu_open(&w->a, true, (size_t)64 << 20, 0, 0, false);
	cu_open(&w->b, false, (size_t)64 << 20, 0, 0, false);
	w->a.tap = word_came;
	w->a.user = w;
	w->dead = (unsigned)between(w, 0, 3 * LINKS) % LINKS * (seed % 2); /* often the one that was known before */
	w->word = seed % 4 ? 4 * MIB : MIB;
	w->dead_at = between(w, 600, 2000) * MS;
	uint64_t delay = between(w, 8, 16) * MS;
	tnl_channel_ask_hop(w->b.ch);
	for (unsigned i = 0; i < LINKS; i++) {
		w->up[i].rate = w->down[i].rate = RATE;
		w->up[i].delay = w->down[i].delay = delay;
		assert_int_equal(tnl_channel_link_add(w->a.ch, i, 0, 0), 0);
		assert_int_equal(tnl_channel_link_add(w->b.ch, i, 0, 0), 0);
	}
}

static void close_world(struct stall_world *w)
{
	for (unsigned i = 0; i < LINKS; i++) {
		pipe_close(&w->up[i]);
		pipe_close(&w->down[i]);
	}
	tnl_channel_free(w->b.ch);
	done(&w->a);
}

/* When the next thing arrives on link i. */
static uint64_t arrival(const struct stall_world *w, const struct pipe_model *p, unsigned i)
{
	uint64_t at = pipe_next(p);
	return i == w->dead && at >= w->dead_at ? UINT64_MAX : at;
}

static void take_in(struct stall_world *w, struct end *e, struct pipe_model *from)
{
	static const struct tnl_hop lossy = {.repairs = true};
	for (unsigned i = 0; i < LINKS; i++) {
		while (arrival(w, &from[i], i) <= w->now) {
			struct packet k = from[i].q[from[i].head];
			struct tnl_msg m;
			if (e == &w->a)
				tnl_ack_tell_hop(k.data, &lossy);
			assert_int_equal(tnl_msg_peek(k.data, k.len, &m, NULL), 0);
			assert_int_equal(tnl_channel_feed_on(e->ch, i, &m, w->now), 0);
			pipe_drop(&from[i]);
		}
	}
}

/* One message on the first link that takes it. */
static bool send_next(struct stall_world *w, struct end *e, struct pipe_model *to)
{
	uint8_t order[TNL_LINKS_MAX];
	unsigned n = tnl_channel_link_order(e->ch, UINT32_MAX, w->now, order);
	const uint8_t *d;
	size_t len;
	for (unsigned i = 0; i < n; i++)
		if (tnl_channel_pull_on(e->ch, order[i], w->now, &d, &len) == 1) {
			pipe_put(&to[order[i]], d, len, w->now);
			return true;
		}
	return false;
}

/* That b has to have said by now. */
static uint64_t words(const struct stall_world *w)
{
	return TNL_MIN(w->now / QUIET, FIRST) + w->b.bytes / w->word;
}

/* The next piece of bulk, the next word. */
static bool make_next(struct stall_world *w, struct end *e)
{
	size_t n = tnl_channel_can_send(e->ch, w->now);
	if (!n)
		return false;
	if (e == &w->b) {
		if (w->said == words(w))
			return false;
		w->said++;
		cu_send(e, NULL, 16, w->now);
		return true;
	}
	n = TNL_MIN(n, BULK - w->sent);
	if (!n || w->heard < FIRST || w->sent + n > (w->heard - FIRST) * w->word + AHEAD)
		return false;
	w->sent += n;
	cu_send(e, NULL, n, w->now);
	return true;
}

static void run_end(struct stall_world *w, struct end *e, struct pipe_model *from, struct pipe_model *to)
{
	take_in(w, e, from);
	assert_int_equal(tnl_channel_expire(e->ch, w->now), 0);
	while (send_next(w, e, to) || make_next(w, e))
		;
}

/* How long it takes beyond what three links would need, in ms. */
static unsigned run(struct stall_world *w)
{
	uint64_t needed = (uint64_t)((double)BULK / (3 * RATE) * 1e9) + FIRST * QUIET;
	while (!w->over && w->now < 60 * SEC) {
		run_end(w, &w->a, w->down, w->up);
		run_end(w, &w->b, w->up, w->down);
		uint64_t at = TNL_MIN(tnl_channel_deadline(w->a.ch), tnl_channel_deadline(w->b.ch));
		if (w->now < FIRST * QUIET)
			at = TNL_MIN(at, (w->now / QUIET + 1) * QUIET);
		for (unsigned i = 0; i < LINKS; i++)
			at = TNL_MIN(at, TNL_MIN(arrival(w, &w->up[i], i), arrival(w, &w->down[i], i)));
		w->now = TNL_MAX(at, w->now + 10000);
	}
	if (!w->over)
		w->over = w->now;
	return w->over > needed ? (unsigned)((w->over - needed) / MS) : 0;
}

static void the_others_carry_it_all(void **state)
{
	(void)state;
	for (unsigned seed = 1; seed <= 40; seed++) {
		struct stall_world w;
		open_world(&w, seed);
		unsigned late = run(&w);
		if (late > 1500)
			fail_msg("seed %u: link %u stood still at %u ms, and it took %u ms longer than needed", seed,
				 w.dead, (unsigned)(w.dead_at / MS), late);
		close_world(&w);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(the_others_carry_it_all),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
