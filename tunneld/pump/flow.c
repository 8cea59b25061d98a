/* Flows: the datagrams of one socket on one stream.  Outward they wait in a queue that drops its oldest, so that
 * whoever sends them is never held up; inward each goes to the owner at once, or, where there is a pace, waits in such
 * a queue for its turn.  Those that come in parts, over several messages, are put together, as many as a session may
 * have at a time. */
#include "tunneld/pump/internal.h"

#include "lib/alloc.h"
#include "lib/num.h"
#include "tunneld/base/memory.h"

#define PARTS_MOST ((size_t)2 << 20) /* of a session */
#define AGAIN (10 * TD_MS)

struct td_flow {
	struct tnl_dgramq out, late; /* late: inward, for the pace */
	size_t paid;		     /* bytes that the pace has given for the first of these */
	struct tnl_dgram_reader in;
	struct td_pipe *pipe; /* NULL: not yet */
	td_flow_fn *deliver;
	void *user;
};

struct td_flow *td_flow_new(size_t queue, td_flow_fn *deliver, void *user)
{
	struct td_flow *f = tnl_calloc(1, sizeof(*f));
	if (!f)
		return NULL;
	tnl_dgramq_init(&f->out, queue);
	tnl_dgramq_init(&f->late, queue);
	f->deliver = deliver;
	f->user = user;
	return f;
}

void td_flow_free(struct td_flow *f)
{
	if (!f)
		return;
	if (f->pipe)
		f->pipe->pump->flow_parts -= tnl_dgram_parts(&f->in);
	tnl_dgramq_clear(&f->out);
	tnl_dgramq_clear(&f->late);
	tnl_dgram_reader_fini(&f->in);
	tnl_free(f);
}

uint64_t td_flow_dropped(const struct td_flow *f)
{
	return f->out.dropped + f->late.dropped + f->in.skipped;
}

/* While memory is spent nothing grows: each takes the place of older ones.  Where there are none it has what is kept
 * for such moments, or is dropped. */
static void put_off(struct tnl_dgramq *q, const uint8_t *p, size_t n)
{
	size_t before = q->bytes;
	if (!td_memory_spent() || (!q->count && !td_memory_full())) {
		tnl_dgramq_push(q, p, n);
		return;
	}
	while (before - q->bytes < n && tnl_dgramq_drop(q))
		;
	if (before - q->bytes >= n)
		tnl_dgramq_push(q, p, n);
	else
		q->dropped++;
}

void td_flow_send(struct td_flow *f, const uint8_t *p, size_t n)
{
	struct td_pipe *pipe = f->pipe;
	if (pipe && (pipe->dying || !pipe->st || td_pipe_sources_over(pipe)))
		return;
	put_off(&f->out, p, n);
	if (!pipe)
		return;
	tnl_stream_want_send(pipe->st, true);
	td_pump_kick(pipe->pump);
}

void td_flow_join(struct td_flow *f, struct td_pipe *p)
{
	f->pipe = p;
	tnl_stream_want_send(p->st, f->out.count > 0);
}

/* Nothing goes now; what waits goes when the session, or the pace, may. */
static bool feed_later(struct td_pipe *p, bool soon)
{
	tnl_stream_want_send(p->st, false);
	if (soon)
		td_timer_in(&p->lead_again, AGAIN);
	return false;
}

bool td_flow_feed(struct td_pipe *p)
{
	uint64_t now = p->pump->loop->now;
	struct tnl_dgramq *q = &p->flow->out;
	size_t cap, may = p->dying || !q->count ? 0 : td_pipe_may(p, TD_PACE_OUT);
	uint8_t *b = may ? tnl_stream_reserve(p->st, &cap, now) : NULL;

	if (!b)
		return feed_later(p, may > 0);
	size_t n = tnl_dgramq_pull(q, b, TNL_MIN(cap, may));
	p->in += n;
	td_pipe_moved(p, TD_PACE_OUT, n);
	if (tnl_stream_commit(p->st, n, TNL_PT_OUTPUT, now) < 0)
		td_pipe_abort(p, TNL_RESET_LIMIT);
	if (!q->count)
		td_pipe_rests(p, TD_PACE_OUT);
	tnl_stream_want_send(p->st, q->count > 0 && !p->dying);
	return true;
}

static void bring(struct td_pipe *p, const uint8_t *d, size_t n)
{
	p->out += n;
	p->flow->deliver(p->flow->user, d, n);
}

void td_flow_drain(struct td_pipe *p)
{
	struct td_flow *f = p->flow;
	const uint8_t *d;
	size_t n;

	while (!p->dying && (d = tnl_dgramq_first(&f->late, &n)) != NULL) {
		size_t lacks = n > f->paid ? n - f->paid : 0, may = lacks ? td_pipe_may(p, TD_PACE_IN) : 0;
		size_t take = TNL_MIN(may, lacks);
		td_pipe_moved(p, TD_PACE_IN, take);
		f->paid += take;
		if (lacks && !may)
			return;
		if (f->paid < n)
			continue;
		f->paid -= n;
		bring(p, d, n);
		tnl_dgramq_pop(&f->late);
	}
	td_pipe_rests(p, TD_PACE_IN);
}

size_t td_flow_deliver(struct td_pipe *p, const uint8_t *b, size_t n)
{
	struct tnl_dgram_reader *r = &p->flow->in;
	size_t used, len;
	const uint8_t *d;

	for (size_t at = 0; at < n && !p->dying; at += used) {
		size_t before = tnl_dgram_parts(r);
		r->full = p->pump->flow_parts - before + TNL_DGRAM_MAX > PARTS_MOST;
		int rc = tnl_dgram_read(r, b + at, n - at, &used, &d, &len);
		if (rc == 1) {
			if (p->pace)
				put_off(&p->flow->late, d, len);
			else
				bring(p, d, len);
			tnl_dgram_done(r);
		} else if (rc < 0) {
			td_pipe_abort(p, TNL_RESET_UNSPEC);
		}
		p->pump->flow_parts += tnl_dgram_parts(r) - before;
	}
	if (p->pace)
		td_flow_drain(p);
	return n;
}
