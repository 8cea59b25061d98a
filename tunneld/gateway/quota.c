/* Quotas: how many sessions a user may have and start, and one instance be sent, and how fast both may flow.
 *
 * Without a number of his own a user has a fair share of the gateway's max_sessions: the last quarter of the places is
 * only for those who have less than an eighth of all.  One user alone may have them all.
 *
 * bandwidth is a bucket that fills at that rate and may go into debt by a message; while there is debt the links of its
 * sessions are not read, so that the senders slow down and nothing is lost.  Several workers may take from one bucket:
 * its numbers are atomic, whoever brings filled_at forward puts in what is due for that time, and the one that finds it
 * empty has the main loop wait for it. */
#include "tunneld/gateway/internal.h"
#include "lib/num.h"
#include "tunneld/base/fd.h"
#include <stdio.h>

#define MINUTE (60 * TD_SEC)
#define BURST_LEAST ((int64_t)64 * 1024)
#define BURST_PARTS 10 /* of a second's bytes */
#define PAUSE_LEAST (10 * TD_MS)
#define US_PER_SEC 1000000ull

/* --- sessions ---------------------------------------------------------------- */
static bool is_fair(const struct td_gateway *g, const struct gw_share *h)
{
	unsigned max = g->cfg->gw.max_sessions;
	if (g->cfg->gw.nusers < 2 || h->quota.max_sessions || g->nactive < max - max / 4)
		return true;
	return h->sessions < TNL_MAX(max / 8, 1u);
}

/* When the next session may start; each moves it on, a minute's worth may come at once. */
static bool is_slow_enough(const struct gw_share *h)
{
	unsigned n = h->quota.sessions_per_minute;
	return !n || h->rate_at <= h->g->l->now + MINUTE - MINUTE / n;
}

void gw_quota_started(struct gw_session *s)
{
	for (int i = 0; i < GW_SHARES; i++) {
		struct gw_share *h = s->shares[i];
		if (h && h->quota.sessions_per_minute)
			h->rate_at = TNL_MAX(h->rate_at, s->g->l->now) + MINUTE / h->quota.sessions_per_minute;
	}
}

static bool admits(const struct gw_share *h, char *why, size_t cap)
{
	struct td_gateway *g = h->g;
	bool user = h->kind == GW_SHARE_USER;
	if (h->quota.max_sessions && h->sessions >= h->quota.max_sessions) {
		gw_count(g, user ? GW_C_LIMIT_USER_SESSIONS : GW_C_LIMIT_INSTANCE_SESSIONS);
		snprintf(why, cap, "%s %.100s is at its limit of %u sessions", gw_share_kind(h), h->name,
			 h->quota.max_sessions);
	} else if (!is_slow_enough(h)) {
		gw_count(g, user ? GW_C_LIMIT_USER_RATE : GW_C_LIMIT_INSTANCE_RATE);
		snprintf(why, cap, "%s %.100s is at its limit of %u sessions per minute", gw_share_kind(h), h->name,
			 h->quota.sessions_per_minute);
	} else if (user && !is_fair(g, h)) {
		gw_count(g, GW_C_LIMIT_FAIR_SHARE);
		snprintf(why, cap, "few sessions are left, and user %.100s has a fair share of them", h->name);
	} else {
		return true;
	}
	return false;
}

bool gw_quota_admit(struct td_gateway *g, const char *user, const char *instance, char *why, size_t cap)
{
	struct gw_share *u = gw_share_get(g, GW_SHARE_USER, user), *i = gw_share_get(g, GW_SHARE_INSTANCE, instance);
	if (!u || !i) {
		snprintf(why, cap, "the gateway is out of memory");
	} else if (g->nactive >= g->cfg->gw.max_sessions) {
		gw_count(g, GW_C_LIMIT_SESSIONS);
		snprintf(why, cap, "the gateway is at its limit of %u sessions", g->cfg->gw.max_sessions);
	} else if (td_fd_short()) {
		gw_count(g, GW_C_LIMIT_DESCRIPTORS);
		snprintf(why, cap, "the gateway has few descriptors left");
	} else if (!gw_share_may_keep(u)) {
		gw_share_reached(u, g->l->now);
		snprintf(why, cap, "the sessions of user %.100s keep as much memory as they may", user);
	} else {
		return admits(u, why, cap) && admits(i, why, cap);
	}
	return false;
}

/* --- bandwidth ------------------------------------------------------------------ */
static int64_t load_credit(const struct gw_share *h)
{
	return __atomic_load_n(&h->credit, __ATOMIC_RELAXED);
}

static uint64_t load_bandwidth(const struct gw_share *h)
{
	return __atomic_load_n(&h->bandwidth, __ATOMIC_RELAXED);
}

static void fill_bucket(struct gw_share *h, uint64_t now)
{
	uint64_t at = __atomic_load_n(&h->filled_at, __ATOMIC_RELAXED), rate = load_bandwidth(h);
	uint64_t us = now > at ? (now - at) / 1000 : 0;
	int64_t most = TNL_MAX((int64_t)(rate / BURST_PARTS), BURST_LEAST), had = load_credit(h), has;
	if (!us ||
	    !__atomic_compare_exchange_n(&h->filled_at, &at, at + us * 1000, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		return;
	do
		has = TNL_MIN(had + (int64_t)(rate * TNL_MIN(us, US_PER_SEC) / US_PER_SEC), most);
	while (!__atomic_compare_exchange_n(&h->credit, &had, has, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
}

static void wait_for_credit(void *arg);

static void on_refill(void *arg)
{
	struct gw_share *h = arg;
	bool limited = load_bandwidth(h) > 0;
	if (limited)
		fill_bucket(h, h->g->l->now);
	if (limited && load_credit(h) < 0) {
		wait_for_credit(h);
		return;
	}
	__atomic_store_n(&h->throttled, false, __ATOMIC_RELAXED);
	td_soon_do(&h->g->go_on);
}

static void wait_for_credit(void *arg)
{
	struct gw_share *h = arg;
	uint64_t lacking = (uint64_t)-TNL_MIN(load_credit(h), (int64_t)0), rate = TNL_MAX(load_bandwidth(h), 1ull);
	if (!h->refill.l)
		td_timer_init(&h->refill, h->g->l, on_refill, h);
	td_timer_in(&h->refill, TNL_MAX(lacking * US_PER_SEC / rate * 1000, PAUSE_LEAST));
}

static void charge(struct gw_share *h, size_t n, struct gw_worker *k)
{
	__atomic_fetch_add(&h->relayed, n, __ATOMIC_RELAXED);
	if (!load_bandwidth(h))
		return;
	fill_bucket(h, k->l->now);
	if (__atomic_sub_fetch(&h->credit, (int64_t)n, __ATOMIC_RELAXED) >= 0 ||
	    __atomic_exchange_n(&h->throttled, true, __ATOMIC_RELAXED))
		return;
	gw_count(h->g, h->kind == GW_SHARE_USER ? GW_C_LIMIT_USER_BANDWIDTH : GW_C_LIMIT_INSTANCE_BANDWIDTH);
	if (td_worker_here())
		gw_worker_mail(k, &h->mail, wait_for_credit, h);
	else
		wait_for_credit(h);
}

void gw_quota_charge(struct gw_session *s, size_t n)
{
	for (int i = 0; i < GW_SHARES; i++)
		if (s->shares[i])
			charge(s->shares[i], n, s->worker);
}

bool gw_quota_throttles(const struct gw_session *s)
{
	for (int i = 0; i < GW_SHARES; i++)
		if (s->shares[i] && __atomic_load_n(&s->shares[i]->throttled, __ATOMIC_RELAXED))
			return true;
	return false;
}
