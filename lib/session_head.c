/* Where a stream goes, in a session that agreed on Dial (lib/head.h): the client's head follows its
 * OPEN, and the agent's user hears of the stream when that is whole. */
#include "lib/alloc.h"
#include "lib/session_internal.h"
#include <string.h>

int tnl_stream_put_head(struct tnl_stream *st, const struct tnl_head *h)
{
	uint8_t b[TNL_HEAD_MAX];
	size_t n = tnl_head_write(h, b);
	st->head_out = tnl_malloc(n);
	if (!st->head_out)
		return TNL_ENOMEM;
	memcpy(st->head_out, b, n);
	st->head_len = n;
	st->asked = TNL_KIND_TOLD;
	return 0;
}

void tnl_stream_drop_head(struct tnl_stream *st)
{
	tnl_free(st->head_out);
	st->head_out = NULL;
	st->head_len = 0;
}

void tnl_stream_head_fini(struct tnl_stream *st)
{
	tnl_stream_drop_head(st);
	tnl_head_reader_fini(&st->head_in);
	tnl_free(st->head);
	st->head = NULL;
}

const struct tnl_head *tnl_stream_head(const struct tnl_stream *st)
{
	return st->head;
}

void tnl_stream_refuse_unheard(struct tnl_stream *st, uint32_t reason, const char *words)
{
	struct tnl_session *s = st->s;
	tnl_session_cb_enter(s); /* whoever called still looks at it */
	if (s->caps.reset_words)
		tnl_stream_keep_words(st, words, strlen(words));
	tnl_stream_send_reset(st, reason);
	tnl_stream_free(st);
	tnl_session_cb_leave(s);
	if (s->mux.nzombies > 2 * TNL_OPENS_REFUSED_MAX)
		s->failed = TNL_EPROTO;
}

static int keep_head(struct tnl_stream *st, const struct tnl_head *h)
{
	st->head = tnl_malloc(sizeof(*h));
	if (!st->head)
		return TNL_ENOMEM;
	*st->head = *h;
	return 0;
}

static int took_destination(struct tnl_stream *st, const struct tnl_head *h)
{
	int rc = keep_head(st, h);
	if (rc)
		return rc;
	st->head_wanted = false;
	tnl_stream_arm_timer(st);
	tnl_stream_call_open(st);
	return 0;
}

int tnl_stream_take_head(struct tnl_stream *st, const uint8_t **p, size_t *n)
{
	struct tnl_head h;
	size_t used;
	int rc = tnl_head_feed(&st->head_in, *p, *n, &used, &h);

	st->consumed += (uint32_t)used;
	*p += used;
	*n -= used;
	if (rc == 1)
		rc = took_destination(st, &h);
	else if (rc == TNL_ESYNTAX)
		tnl_stream_refuse_unheard(st, TNL_RESET_UNSPEC, "where it goes is not understood");
	if (st->zombie || st->was_reset)
		*n = 0;
	return rc == TNL_ENOMEM ? rc : 0;
}
