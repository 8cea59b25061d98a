/* The congestion window against a model of a link: rate, delay, an endless
 * queue in front of it, and processes that the scheduler wakes late.  Virtual
 * time, no chance: the same numbers in every run. */
#include "tests/unit/chan_util.h"
#include "lib/cc.h"
#include "lib/num.h"

struct packet {
	uint64_t at;
	size_t len;
	uint8_t *data;
};
struct pipe_model {
	double rate; /* bytes/s */
	uint64_t delay, free_at;
	unsigned lose;	    /* of 10,000 packets of 1,460 bytes; what is behind one waits for its repeat */
	uint64_t held, rnd; /* nothing arrives before */
	struct packet *q;
	size_t head, count, size;
};

struct world {
	struct end a, b;
	struct pipe_model up, down;
	uint64_t now, a_at, b_at; /* when each process runs next; UINT64_MAX: asleep */
	uint32_t rnd;
	unsigned noise_pct; /* wakeups that come late */
	uint64_t noise_max;
	bool bulk;
	unsigned per_turn;	      /* messages that the source gives each time it runs; 0: all it may */
	uint64_t source_window, sent; /* the source has at most so much on its way; 0: no limit */
	unsigned ping_ms;
	uint64_t next_ping, pings, ping_sum, ping_worst, ping_sent;
	bool ping_out;
};

static uint32_t roll(struct world *w)
{
	w->rnd = w->rnd * 1664525u + 1013904223u;
	return w->rnd >> 8;
}

static uint64_t wake_delay(struct world *w)
{
	if (w->noise_pct && roll(w) % 100 < w->noise_pct)
		return roll(w) % w->noise_max;
	return 10000;
}

static void pipe_put(struct pipe_model *p, const uint8_t *d, size_t n, uint64_t now)
{
	if (p->count == p->size) {
		size_t size = p->size ? 2 * p->size : 1024;
		struct packet *q = malloc(size * sizeof(*q));
		for (size_t i = 0; i < p->count; i++)
			q[i] = p->q[(p->head + i) % p->size];
		free(p->q);
		p->q = q;
		p->size = size;
		p->head = 0;
	}
	uint64_t start = TNL_MAX(now, p->free_at);
	p->free_at = start + (uint64_t)((double)n / p->rate * 1e9);
	struct packet *k = &p->q[(p->head + p->count++) % p->size];
	k->at = p->free_at + p->delay;
	for (size_t i = 0; p->lose && i < n; i += 1460) {
		p->rnd = p->rnd * 6364136223846793005u + 1442695040888963407u;
		if ((p->rnd >> 33) % 10000 < p->lose && k->at + 2 * p->delay > p->held)
			p->held = k->at + 2 * p->delay;
	}
	k->at = TNL_MAX(k->at, p->held);
	k->len = n;
	k->data = malloc(n);
	memcpy(k->data, d, n);
}

static uint64_t pipe_next(const struct pipe_model *p)
{
	return p->count ? p->q[p->head].at : UINT64_MAX;
}

static void ping_seen(struct end *e, const struct tnl_msg *m, uint64_t now)
{
	struct world *w = e->user;
	if (m->plen != 64)
		return;
	uint64_t d = now - w->ping_sent;
	w->ping_out = false;
	w->pings++;
	w->ping_sum += d;
	w->ping_worst = TNL_MAX(w->ping_worst, d);
}

static void receive(struct world *w, struct end *e, struct pipe_model *p)
{
	while (p->count && p->q[p->head].at <= w->now) {
		struct packet k = p->q[p->head];
		p->head = (p->head + 1) % p->size;
		p->count--;
		struct tnl_msg m;
		assert_int_equal(tnl_msg_peek(k.data, k.len, &m, NULL), 0);
		assert_int_equal(tnl_channel_feed(e->ch, &m, w->now), 0);
		free(k.data);
	}
}

static void transmit(struct world *w, struct end *e, struct pipe_model *p)
{
	const uint8_t *d;
	size_t n;
	assert_int_equal(tnl_channel_expire(e->ch, w->now), 0);
	if (e == &w->a) {
		/* As a session asks for a stream that is new in its turn. */
		if (w->ping_ms && !w->ping_out && w->now >= w->next_ping &&
		    (tnl_channel_can_send(e->ch, w->now) || tnl_channel_can_send_small(e->ch, w->now))) {
			cu_send(e, NULL, 64, w->now);
			w->ping_out = true;
			w->ping_sent = w->now;
			w->next_ping = w->now + w->ping_ms * MS + roll(w) % MS;
		}
		for (unsigned k = 0; w->bulk && (!w->source_window || w->sent < w->b.bytes + w->source_window) &&
				     (n = tnl_channel_can_send(e->ch, w->now));
		     k++) {
			if (w->per_turn && k == w->per_turn) {
				w->a_at = w->now + 50000;
				break;
			}
			if (w->per_turn && n > 3000)
				n = 3000; /* what one read(2) gave */
			cu_send(e, NULL, n == 64 ? 65 : n, w->now);
			w->sent += n;
		}
	}
	while (tnl_channel_pull(e->ch, w->now, &d, &n) == 1)
		pipe_put(p, d, n, w->now);
}

static void world_open(struct world *w, double rate, uint64_t one_way)
{
	memset(w, 0, sizeof(*w));
	cu_open(&w->a, true, 0, 0, 0, false);
	cu_open(&w->b, false, 0, 0, 0, false);
	w->b.tap = ping_seen;
	w->b.user = w;
	w->up.rate = w->down.rate = rate;
	w->up.delay = w->down.delay = one_way;
	w->rnd = 1;
	w->bulk = true;
	tnl_channel_link_up(w->a.ch, 0);
	tnl_channel_link_up(w->b.ch, 0);
	const uint8_t *none;
	size_t n;
	assert_int_equal(tnl_channel_pull(w->a.ch, 0, &none, &n), TNL_EAGAIN); /* as a pump does before it reads */
	w->b_at = UINT64_MAX;
}

/* Each end runs when something arrived for it, when its timer is due, and A when a ping is. */
static void run_until(struct world *w, uint64_t end)
{
	while (w->now < end) {
		uint64_t a_evt = TNL_MIN(pipe_next(&w->down), tnl_channel_deadline(w->a.ch));
		if (w->ping_ms && !w->ping_out)
			a_evt = TNL_MIN(a_evt, w->next_ping);
		uint64_t b_evt = TNL_MIN(pipe_next(&w->up), tnl_channel_deadline(w->b.ch));
		uint64_t t = TNL_MIN(TNL_MIN(w->a_at, w->b_at), TNL_MIN(w->a_at == UINT64_MAX ? a_evt : UINT64_MAX,
									w->b_at == UINT64_MAX ? b_evt : UINT64_MAX));
		w->now = TNL_MAX(w->now, t);
		if (w->a_at == UINT64_MAX && a_evt <= w->now)
			w->a_at = w->now + wake_delay(w);
		if (w->b_at == UINT64_MAX && b_evt <= w->now)
			w->b_at = w->now + wake_delay(w);
		if (w->a_at <= w->now) {
			w->a_at = UINT64_MAX;
			receive(w, &w->a, &w->down);
			transmit(w, &w->a, &w->up);
		}
		if (w->b_at <= w->now) {
			w->b_at = UINT64_MAX;
			receive(w, &w->b, &w->up);
			transmit(w, &w->b, &w->down);
		}
	}
}

static void world_close(struct world *w)
{
	struct pipe_model *ps[2] = {&w->up, &w->down};
	for (int i = 0; i < 2; i++) {
		while (ps[i]->count) {
			free(ps[i]->q[ps[i]->head].data);
			ps[i]->head = (ps[i]->head + 1) % ps[i]->size;
			ps[i]->count--;
		}
		free(ps[i]->q);
	}
	tnl_channel_free(w->a.ch);
	tnl_channel_free(w->b.ch);
}

struct result {
	double util, ping_avg, ping_worst;
	struct tnl_channel_stats st;
}; /* pings: ms beyond the path's own time */

static struct result measure(struct world *w, uint64_t ns)
{
	uint64_t from = w->now, bytes = w->b.bytes;
	w->ping_sum = w->pings = w->ping_worst = 0;
	run_until(w, from + ns);
	double idle = (double)w->up.delay / 1e6;
	struct result r = {.util = (double)(w->b.bytes - bytes) / (w->up.rate * (double)(w->now - from) / 1e9),
			   .ping_avg = w->pings ? (double)w->ping_sum / (double)w->pings / 1e6 - idle : 0,
			   .ping_worst = w->pings ? (double)w->ping_worst / 1e6 - idle : 0};
	tnl_channel_stats(w->a.ch, &r.st);
	if (getenv("TNL_CC_TRACE"))
		print_message(
		    "%.2f s: rate %.3g util %.3f ping +%.2f worst +%.2f ms; cwnd %zu, measured %.3g, min rtt %.2f ms\n",
		    (double)w->now / 1e9, w->up.rate, r.util, r.ping_avg, r.ping_worst, r.st.cwnd,
		    (double)r.st.delivery_rate, (double)r.st.min_rtt_ns / 1e6);
	return r;
}

static void above(double value, double least)
{
	if (value < least)
		fail_msg("%.3f is less than %.3f", value, least);
}

static void below(double value, double most)
{
	if (value > most)
		fail_msg("%.3f is more than %.3f", value, most);
}

static void a_ping_beside_a_bulk_transfer_stays_fast(void **state)
{
	(void)state;
	static const double rates[] = {1.25e5, 1.25e6, 1.25e7, 6e7};
	for (unsigned i = 0; i < 4; i++) {
		struct world w;
		world_open(&w, rates[i], 25 * MS);
		w.ping_ms = 20;
		measure(&w, 2 * SEC);
		struct result r = measure(&w, 5 * SEC);
		/* At 1 Mbit/s one message alone takes 9 ms. */
		above(r.util, i ? 0.92 : 0.85);
		below(r.ping_avg, i ? 4.5 : 15);
		below(r.ping_worst, i ? 8 : 20);
		assert_int_equal(r.st.resent, 0);
		world_close(&w);
	}
}

static void the_start_is_quick_and_without_a_flood(void **state)
{
	(void)state;
	struct world w;
	world_open(&w, 1.25e7, 25 * MS);
	w.ping_ms = 20;
	struct result r = measure(&w, SEC);
	above(r.util, 0.6);
	below(r.ping_worst, 60);
	world_close(&w);
	world_open(&w, 1.25e7, 100 * MS);
	measure(&w, 2 * SEC);
	r = measure(&w, 2 * SEC);
	above(r.util, 0.7);
	world_close(&w);
}

/* The window of a stream, not the channel's, is what limits the source: it says of itself that it
 * has run dry, and still fills the queue. */
static void a_source_with_a_window_of_its_own_makes_no_queue_either(void **state)
{
	(void)state;
	struct world w;
	world_open(&w, 5e6, 25 * MS);
	w.ping_ms = 20;
	w.source_window = 1u << 20;
	w.per_turn = 1;
	w.bulk = false;
	measure(&w, SEC);
	w.bulk = true;
	measure(&w, 2 * SEC);
	struct result r = measure(&w, 4 * SEC);
	above(r.util, 0.92);
	below(r.ping_avg, 6);
	world_close(&w);
}

static void loopback_is_not_held_back(void **state)
{
	(void)state;
	struct world w;
	world_open(&w, 3e8, 20000);
	measure(&w, SEC / 5);
	above(measure(&w, SEC / 2).util, 0.98);
	world_close(&w);
}

static void late_wakeups_do_not_collapse_the_window(void **state)
{
	(void)state;
	static const struct {
		unsigned pct;
		uint64_t most;
	} noise[] = {{20, 6 * MS}, {100, 8 * MS}, {10, 30 * MS}};
	for (unsigned i = 0; i < 3; i++) {
		struct world w;
		world_open(&w, 3e8, 20000);
		w.noise_pct = noise[i].pct;
		w.noise_max = noise[i].most;
		measure(&w, SEC);
		above(measure(&w, SEC).util, 0.9);
		world_close(&w);
	}
}

static void noise_on_a_long_path_costs_little(void **state)
{
	(void)state;
	struct world w;
	world_open(&w, 1.25e7, 25 * MS);
	w.noise_pct = 30;
	w.noise_max = 3 * MS;
	w.ping_ms = 20;
	measure(&w, SEC);
	struct result r = measure(&w, 4 * SEC);
	above(r.util, 0.93);
	below(r.ping_avg, 7);
	world_close(&w);
}

/* A busy machine: every wakeup late, so that no round trip under load is as short as the shortest.
 * That is no queue: a smaller window would only cost throughput. */
static void delay_that_is_no_queue_is_told_from_one_that_is(void **state)
{
	(void)state;
	static const double rates[] = {1.25e6, 1.25e7};
	for (unsigned i = 0; i < 2; i++) {
		struct world w;
		world_open(&w, rates[i], 25 * MS);
		w.ping_ms = 50;
		measure(&w, SEC);
		w.noise_pct = 100;
		w.noise_max = 12 * MS;
		measure(&w, 5 * SEC);
		struct result r = measure(&w, 5 * SEC);
		above(r.util, 0.85);
		below(r.ping_avg, 25);
		w.noise_pct = 0; /* and when the machine is quiet again, so is the link */
		measure(&w, 5 * SEC);
		r = measure(&w, 5 * SEC);
		above(r.util, 0.92);
		below(r.ping_avg, 5);
		world_close(&w);
	}
}

/* A hole in the TCP below holds back what came behind it for a round trip. That is late, and no queue. */
static void loss_in_the_link_below_costs_little(void **state)
{
	(void)state;
	static const struct {
		double rate, util;
		unsigned lose;
	} cases[] = {{5e6, 0.85, 10}, {5e6, 0.7, 100}, {1.25e6, 0.7, 100}, {1.25e6, 0.5, 500}, {2e7, 0.42, 100}};
	for (unsigned i = 0; i < 5; i++) {
		struct world w;
		world_open(&w, cases[i].rate, 25 * MS);
		w.up.lose = cases[i].lose;
		w.ping_ms = 20;
		measure(&w, 2 * SEC);
		struct result r = measure(&w, 10 * SEC);
		above(r.util, cases[i].util);
		world_close(&w);
	}
}

static void a_changed_rate_is_followed(void **state)
{
	(void)state;
	struct world w;
	world_open(&w, 5e6, 25 * MS);
	w.ping_ms = 20;
	measure(&w, 2 * SEC);
	w.up.rate = 2e6;
	measure(&w, 3 * SEC / 2);
	struct result r = measure(&w, 3 * SEC);
	above(r.util, 0.92);
	below(r.ping_avg, 5);
	w.up.rate = 2e7;
	measure(&w, 2 * SEC);
	r = measure(&w, 3 * SEC);
	above(r.util, 0.92);
	below(r.ping_avg, 6);
	world_close(&w);
}

static void a_longer_path_is_noticed(void **state)
{
	(void)state;
	struct world w;
	world_open(&w, 5e6, 15 * MS);
	measure(&w, 2 * SEC);
	w.up.delay = w.down.delay = 60 * MS;
	measure(&w, 4 * SEC);
	struct result r = measure(&w, 4 * SEC);
	above(r.util, 0.9);
	r = measure(&w, 12 * SEC);
	above(r.util, 0.92);
	above((double)r.st.min_rtt_ns, 100e6);
	world_close(&w);
}

static void the_minimum_is_measured_again_without_much_loss(void **state)
{
	(void)state;
	struct world w;
	world_open(&w, 2e6, 25 * MS);
	w.ping_ms = 20;
	measure(&w, 2 * SEC);
	struct result r = measure(&w, 60 * SEC);
	above(r.util, 0.92);
	below(r.ping_avg, 5);
	world_close(&w);
}

static void a_new_burst_after_a_quiet_time_is_spread_out(void **state)
{
	(void)state;
	struct world w;
	world_open(&w, 1.25e7, 25 * MS);
	w.ping_ms = 7;
	measure(&w, 2 * SEC);
	for (int i = 0; i < 5; i++) {
		w.bulk = false;
		measure(&w, SEC);
		w.bulk = true;
		below(measure(&w, SEC / 2).ping_worst, 16);
	}
	world_close(&w);
}

static void a_source_that_runs_dry_does_not_shrink_the_rate(void **state)
{
	(void)state;
	struct world w;
	world_open(&w, 1.25e7, 25 * MS);
	measure(&w, 2 * SEC);
	w.bulk = false;
	w.ping_ms = 20;
	struct result r = measure(&w, 20 * SEC);
	above((double)r.st.delivery_rate, 1.2e7);
	above((double)r.st.cwnd, 500e3);
	world_close(&w);
}

static void no_second_has_more_messages_than_the_limit(void **state)
{
	(void)state;
	static const unsigned rates[] = {1, 7, 19, 20, 900, 50000};
	for (unsigned i = 0; i < 6; i++) {
		struct tnl_bucket b;
		tnl_bucket_init(&b, rates[i]);
		uint64_t *sent = calloc(5 * rates[i] + 8, sizeof(*sent)), n = 0;
		for (uint64_t now = 5 * SEC; now < 9 * SEC;) {
			unsigned left = tnl_bucket_left(&b, now);
			assert_true(left != UINT_MAX);
			for (; left; left--) {
				tnl_bucket_take(&b, now);
				sent[n++] = now;
			}
			uint64_t at = tnl_bucket_at(&b);
			assert_true(at > now);
			now = at;
		}
		above((double)n, 3.5 * rates[i]);
		for (uint64_t k = rates[i]; k < n; k++)
			assert_true(sent[k] - sent[k - rates[i]] >= SEC);
		free(sent);
	}
	struct tnl_bucket none;
	tnl_bucket_init(&none, 0);
	assert_int_equal(tnl_bucket_left(&none, 1), UINT_MAX);
}

static void message_sizes_follow_the_rate(void **state)
{
	(void)state;
	struct world w;
	world_open(&w, 1.25e5, 25 * MS);
	measure(&w, 3 * SEC);
	w.bulk = false;
	measure(&w, SEC);
	assert_int_equal(tnl_channel_can_send(w.a.ch, w.now), 1024);
	world_close(&w);
	world_open(&w, 6e6, 25 * MS);
	measure(&w, 3 * SEC);
	w.bulk = false;
	measure(&w, SEC);
	size_t n = tnl_channel_can_send(w.a.ch, w.now);
	assert_in_range(n, 6000, 12000);
	world_close(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_ping_beside_a_bulk_transfer_stays_fast),
	    cmocka_unit_test(the_start_is_quick_and_without_a_flood),
	    cmocka_unit_test(a_source_with_a_window_of_its_own_makes_no_queue_either),
	    cmocka_unit_test(loopback_is_not_held_back),
	    cmocka_unit_test(late_wakeups_do_not_collapse_the_window),
	    cmocka_unit_test(noise_on_a_long_path_costs_little),
	    cmocka_unit_test(delay_that_is_no_queue_is_told_from_one_that_is),
	    cmocka_unit_test(loss_in_the_link_below_costs_little),
	    cmocka_unit_test(a_changed_rate_is_followed),
	    cmocka_unit_test(a_longer_path_is_noticed),
	    cmocka_unit_test(the_minimum_is_measured_again_without_much_loss),
	    cmocka_unit_test(a_new_burst_after_a_quiet_time_is_spread_out),
	    cmocka_unit_test(a_source_that_runs_dry_does_not_shrink_the_rate),
	    cmocka_unit_test(no_second_has_more_messages_than_the_limit),
	    cmocka_unit_test(message_sizes_follow_the_rate),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
