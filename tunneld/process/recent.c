/* Ten minutes of samples a tunnel, a ring each, and a ring of log lines.  Both are bounded; what is beyond is not kept.
 */
#include "tunneld/process/recent.h"
#include "lib/alloc.h"
#include "lib/enc.h"
#include "lib/json.h"
#include "lib/map.h"
#include "lib/num.h"
#include "tunneld/base/log.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { TEXT_MAX = 400 };

struct series {
	uint64_t up, down; /* bytes so far */
	uint64_t seen;	   /* step of the latest sample */
	struct {
		uint32_t up, down, rtt_us; /* bytes a second */
	} v[TD_RECENT_STEPS];
};

struct event {
	uint64_t wall_ms;
	enum tnl_log_level level;
	char *text;
};

struct td_recent {
	struct td_http_source source;
	struct td_timer timer;
	bool sampling;
	struct tnl_map *series; /* by tunnel */
	uint64_t step;		/* of the samples that are being taken, from 1 */
	pthread_mutex_t lock;	/* of what follows: any thread logs */
	struct event events[TD_RECENT_EVENTS];
	uint64_t nevents; /* all that there were */
};

/* --- samples -------------------------------------------------------------------------------- */

static uint32_t per_second(uint64_t now, uint64_t was)
{
	uint64_t n = now > was ? (now - was) / TD_RECENT_STEP_S : 0;
	return (uint32_t)TNL_MIN(n, (uint64_t)UINT32_MAX);
}

static struct series *series_of(struct td_recent *r, const char *tunnel)
{
	struct series *s = tnl_map_get_str(r->series, tunnel);
	if (s || tnl_map_count(r->series) >= TD_RECENT_TUNNELS || !(s = tnl_calloc(1, sizeof(*s))))
		return s;
	if (tnl_map_set_str(r->series, tunnel, s) == 0)
		return s;
	tnl_free(s);
	return NULL;
}

static void take_sample(void *ctx, const char *tunnel, uint64_t up, uint64_t down, uint64_t rtt_us)
{
	struct td_recent *r = ctx;
	struct series *s = series_of(r, tunnel);
	if (!s)
		return;
	size_t at = r->step % TD_RECENT_STEPS;
	bool first = s->seen != r->step - 1;
	s->v[at].up = first ? 0 : per_second(up, s->up);
	s->v[at].down = first ? 0 : per_second(down, s->down);
	s->v[at].rtt_us = (uint32_t)TNL_MIN(rtt_us, (uint64_t)UINT32_MAX);
	s->up = up;
	s->down = down;
	s->seen = r->step;
}

/* Tunnels that are no longer there. */
static void forget_gone(struct td_recent *r)
{
	size_t it = 0, n;
	const void *key;
	for (struct series *s; (s = tnl_map_next(r->series, &it, &key, &n)) != NULL;) {
		if (s->seen == r->step)
			continue;
		(void)tnl_map_del(r->series, key, n);
		tnl_free(s);
		it = 0; /* the map has changed */
	}
}

static void on_step(void *arg)
{
	struct td_recent *r = arg;
	r->step++;
	r->source.sample(r->source.ctx, take_sample, r);
	forget_gone(r);
	td_timer_in(&r->timer, TD_RECENT_STEP_S * TD_SEC);
}

static void put_values(struct tnl_jw *w, const char *key, const struct td_recent *r, const struct series *s, int which)
{
	tnl_jw_key(w, key);
	tnl_jw_arr(w);
	for (uint64_t i = 1; i <= TD_RECENT_STEPS; i++) {
		size_t at = (r->step + i) % TD_RECENT_STEPS;
		tnl_jw_int(w, which == 0 ? s->v[at].up : which == 1 ? s->v[at].down : s->v[at].rtt_us);
	}
	tnl_jw_end_arr(w);
}

void td_recent_history(const struct td_recent *r, struct tnl_buf *json)
{
	char name[256];
	struct tnl_jw w;
	size_t it = 0, n;
	const void *key;
	tnl_jw_init(&w, json);
	tnl_jw_obj(&w);
	tnl_jw_kvi(&w, "step_s", TD_RECENT_STEP_S);
	tnl_jw_key(&w, "tunnels");
	tnl_jw_obj(&w);
	for (const struct series *s; (s = tnl_map_next(r->series, &it, &key, &n)) != NULL;) {
		snprintf(name, sizeof(name), "%.*s", (int)n, (const char *)key);
		tnl_jw_key(&w, name);
		tnl_jw_obj(&w);
		put_values(&w, "up", r, s, 0);
		put_values(&w, "down", r, s, 1);
		put_values(&w, "rtt_us", r, s, 2);
		tnl_jw_end_obj(&w);
	}
	tnl_jw_end_obj(&w);
	tnl_jw_end_obj(&w);
}

/* --- events --------------------------------------------------------------------------------- */

static void take_event(void *ctx, enum tnl_log_level level, const char *module, const char *session, const char *text)
{
	struct td_recent *r = ctx;
	char line[TEXT_MAX];
	struct timespec at;
	if (level == TNL_LOG_DEBUG)
		return;
	clock_gettime(CLOCK_REALTIME, &at);
	snprintf(line, sizeof(line), "%s %s%s%s", module, session ? session : "", session ? " " : "", text);
	pthread_mutex_lock(&r->lock);
	struct event *e = &r->events[r->nevents % TD_RECENT_EVENTS];
	tnl_free(e->text);
	*e = (struct event){(uint64_t)at.tv_sec * 1000 + (uint64_t)at.tv_nsec / TD_MS, level, tnl_strdup(line)};
	r->nevents++;
	pthread_mutex_unlock(&r->lock);
}

static void put_event(struct tnl_jw *w, const struct event *e)
{
	static const char *const levels[] = {"error", "warn", "info", "debug"};
	char date[TNL_ISO_STR];
	struct tnl_buf b;
	tnl_buf_init(&b, 8192);
	tnl_escape(&b, e->text, strlen(e->text), false);
	tnl_iso_date(e->wall_ms, date);
	tnl_jw_obj(w);
	tnl_jw_kv(w, "time", date);
	tnl_jw_kv(w, "level", levels[e->level]);
	tnl_jw_kv(w, "text", tnl_buf_str(&b));
	tnl_jw_end_obj(w);
	tnl_buf_fini(&b);
}

void td_recent_events(struct td_recent *r, struct tnl_buf *json)
{
	struct tnl_jw w;
	tnl_jw_init(&w, json);
	tnl_jw_arr(&w);
	pthread_mutex_lock(&r->lock);
	uint64_t n = TNL_MIN(r->nevents, (uint64_t)TD_RECENT_EVENTS);
	for (uint64_t i = r->nevents - n; i < r->nevents; i++)
		if (r->events[i % TD_RECENT_EVENTS].text)
			put_event(&w, &r->events[i % TD_RECENT_EVENTS]);
	pthread_mutex_unlock(&r->lock);
	tnl_jw_end_arr(&w);
}

/* --- the object ------------------------------------------------------------------------------- */

struct td_recent *td_recent_new(struct td_loop *l, const struct td_http_source *s)
{
	struct td_recent *r = tnl_calloc(1, sizeof(*r));
	if (!r || !(r->series = tnl_map_new())) {
		tnl_free(r);
		return NULL;
	}
	pthread_mutex_init(&r->lock, NULL);
	r->source = *s;
	td_timer_init(&r->timer, l, on_step, r);
	td_log_tap(take_event, r);
	return r;
}

void td_recent_sample(struct td_recent *r, bool on)
{
	if (!on)
		td_timer_stop(&r->timer);
	else if (!r->sampling)
		td_timer_in(&r->timer, 0);
	r->sampling = on;
}

void td_recent_free(struct td_recent *r)
{
	size_t it = 0;
	if (!r)
		return;
	td_log_tap(NULL, NULL);
	td_timer_stop(&r->timer);
	for (struct series *s; (s = tnl_map_next(r->series, &it, NULL, NULL)) != NULL;)
		tnl_free(s);
	tnl_map_free(r->series);
	for (size_t i = 0; i < TD_RECENT_EVENTS; i++)
		tnl_free(r->events[i].text);
	pthread_mutex_destroy(&r->lock);
	tnl_free(r);
}
