/* Streams that this end opens: with or without a destination, and those of a listener at the agent. */
#include "lib/alloc.h"
#include "lib/session_internal.h"

static struct tnl_stream *open_failed(int rc, int *err)
{
	if (err)
		*err = rc;
	return NULL;
}

/* READY: out with its SYN.  NULL: no memory for its id; nobody heard of it. */
static struct tnl_stream *start_ours(struct tnl_stream *st, uint64_t now)
{
	tnl_stream_start(st, now);
	if (!st->was_reset)
		return st;
	tnl_stream_free(st);
	return NULL;
}

struct tnl_stream *tnl_stream_open_reverse(struct tnl_session *s, void *user, uint16_t listener, const char *from,
					   uint64_t now, int *err)
{
	if (tnl_session_over(s) || s->failed)
		return open_failed(TNL_ECLOSED, err);
	if (!s->cfg.agent || !s->info.reverse || s->state != TNL_SS_READY || listener == 0)
		return open_failed(TNL_EINVAL, err);
	if (s->mux.next_id > UINT32_MAX - 2 || s->mux.nstreams >= s->mux.streams_max)
		return open_failed(TNL_ELIMIT, err);
	struct tnl_stream *st = tnl_stream_create(s, true, now);
	if (!st)
		return open_failed(TNL_ENOMEM, err);
	st->user = user;
	st->listener = listener;
	st->from = tnl_strdup(from); /* none for want of memory: not told */
	st = start_ours(st, now);
	if (err)
		*err = st ? 0 : TNL_ENOMEM;
	return st;
}

uint16_t tnl_stream_listener(const struct tnl_stream *st)
{
	return st->listener;
}

const char *tnl_stream_from(const struct tnl_stream *st)
{
	return st->from ? st->from : "";
}

/* Why no stream can be opened, 0: one can. */
static int refuses_open(const struct tnl_session *s, const struct tnl_head *to)
{
	const struct tnl_mux *m = &s->mux;
	if (tnl_session_over(s) || s->failed)
		return TNL_ECLOSED;
	if (s->cfg.agent)
		return TNL_EINVAL;
	if (m->next_id > UINT32_MAX - 2 || m->nstreams >= TNL_STREAMS_MAX)
		return TNL_ELIMIT;
	if (s->state != TNL_SS_READY)
		return 0;
	if (!to != !s->info.dial)
		return TNL_EINVAL;
	bool taken = m->single || (m->had_single && s->info.mode != TNL_MODE_BASIC);
	return s->info.mode != TNL_MODE_MUX && taken ? TNL_EBUSY : 0;
}

struct tnl_stream *tnl_stream_open_to(struct tnl_session *s, const struct tnl_head *to, void *user, uint64_t now,
				      int *err)
{
	struct tnl_mux *m = &s->mux;
	int rc = refuses_open(s, to);
	struct tnl_stream *st = rc ? NULL : tnl_stream_create(s, true, now);
	if (st && to && tnl_stream_put_head(st, to)) {
		tnl_stream_destroy(st);
		st = NULL;
	}
	if (!st)
		return open_failed(rc ? rc : TNL_ENOMEM, err);
	st->user = user;
	if (s->state == TNL_SS_READY) {
		if (s->info.mode == TNL_MODE_BASIC)
			m->had_single = false;
		if (!start_ours(st, now))
			return open_failed(TNL_ENOMEM, err);
	}
	if (err)
		*err = 0;
	return st;
}

bool tnl_stream_ask(struct tnl_stream *st, enum tnl_stream_kind kind)
{
	if (!st->s->info.opens || !st->syn_due || (kind == TNL_KIND_UDP && !st->s->info.udp))
		return false;
	st->asked = kind;
	return true;
}

enum tnl_stream_kind tnl_stream_asked(const struct tnl_stream *st)
{
	return st->asked;
}

struct tnl_stream *tnl_stream_open(struct tnl_session *s, void *user, uint64_t now, int *err)
{
	return tnl_stream_open_to(s, NULL, user, now, err);
}
