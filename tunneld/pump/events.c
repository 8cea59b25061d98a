/* What the session reports.  Bytes, ends and resets of a stream go to its pipe at once; everything that the owner is to
 * hear is noted here and told when the session has returned. */
#include "tunneld/pump/internal.h"

#include "lib/alloc.h"
#include "tunneld/base/log.h"

#include <string.h>

enum event_kind {
	EVENT_READY,
	EVENT_OPEN,
	EVENT_CANCELLED,
	EVENT_FLAG,
	EVENT_SIZE,
	EVENT_EXIT,
	EVENT_PUBLICATION,
	EVENT_KMS,
	EVENT_WORD,
	EVENT_REVERSE,
	EVENT_CLOSED
};

struct event {
	struct tnl_list node;
	enum event_kind kind;
	struct tnl_stream *st; /* OPEN and CANCELLED */
	union {
		bool unheard; /* CANCELLED: the owner never heard of its opening */
		uint32_t flag;
		struct {
			unsigned cols, rows;
		} size;
		int exit_code;
		bool started; /* PUBLICATION */
		struct {
			bool generate;
			char *key_id, *challenge;
			uint8_t *ciphertext;
			size_t len;
		} kms;
		struct tnl_direct *word;
		struct tnl_reverse *reverse;
		struct {
			int err;
			char *text;
		} closed;
	};
};

static struct event *event_new(struct td_pump *p, enum event_kind kind)
{
	struct event *e = tnl_calloc(1, sizeof(*e));
	if (!e) {
		/* Out of memory for a note of some 100 bytes: the session cannot go on in a known state. */
		td_error("pump", tnl_session_id(p->session), "out of memory, session event lost");
		return NULL;
	}
	e->kind = kind;
	tnl_list_push_back(&p->events, &e->node);
	return e;
}

/* A stream has one at a time, and knows it. */
static void note_stream(struct td_pump *p, enum event_kind kind, struct tnl_stream *st)
{
	struct event *e = event_new(p, kind);
	if (!e)
		return;
	e->st = st;
	tnl_stream_set_note(st, e);
}

static void event_free(struct event *e)
{
	tnl_list_remove(&e->node);
	if (e->st)
		tnl_stream_set_note(e->st, NULL);
	if (e->kind == EVENT_KMS) {
		tnl_free(e->kms.key_id);
		tnl_free(e->kms.challenge);
		tnl_free(e->kms.ciphertext);
	} else if (e->kind == EVENT_CLOSED) {
		tnl_free(e->closed.text);
	} else if (e->kind == EVENT_WORD) {
		tnl_free_wiped(e->word, sizeof(*e->word));
	} else if (e->kind == EVENT_REVERSE) {
		tnl_free(e->reverse);
	}
	tnl_free(e);
}

bool td_pump_forget(struct td_pump *p, const struct tnl_stream *st)
{
	struct event *e = tnl_stream_note(st);
	if (e)
		event_free(e);
	return e != NULL;
}

void td_pump_drop_events(struct td_pump *p)
{
	while (!tnl_list_empty(&p->events))
		event_free(tnl_container_of(p->events.next, struct event, node));
}

/* ---- noting ------------------------------------------------------------------- */

static void on_ready(void *ctx, const struct tnl_session_info *info)
{
	event_new(ctx, EVENT_READY);
}

static void on_open(void *ctx, struct tnl_stream *st)
{
	note_stream(ctx, EVENT_OPEN, st);
}

static size_t on_data(void *ctx, struct tnl_stream *st, uint32_t ptype, const uint8_t *b, size_t n)
{
	struct td_pipe *pipe = tnl_stream_user(st);
	return pipe ? td_pipe_deliver(pipe, ptype, b, n) : 0;
}

static void on_eof(void *ctx, struct tnl_stream *st, bool half_closed)
{
	struct td_pipe *pipe = tnl_stream_user(st);
	if (pipe)
		td_pipe_peer_eof(pipe, half_closed);
	/* Without a pipe the dial is still going on; td_pipe_agent asks the stream. */
}

static void on_connected(void *ctx, struct tnl_stream *st)
{
	struct td_pipe *pipe = tnl_stream_user(st);
	if (pipe)
		td_pipe_peer_connected(pipe);
}

static void on_reset(void *ctx, struct tnl_stream *st, uint32_t reason)
{
	struct td_pump *p = ctx;
	struct td_pipe *pipe = tnl_stream_user(st);
	if (pipe) {
		td_pipe_peer_reset(pipe, reason, tnl_stream_reset_words(st));
		return;
	}
	struct event *e = tnl_stream_note(st);
	if (!e) {
		note_stream(p, EVENT_CANCELLED, st);
	} else if (e->kind == EVENT_OPEN) {
		e->kind = EVENT_CANCELLED;
		e->unheard = true;
	}
}

bool td_pump_size_untold(const struct td_pump *p)
{
	tnl_list_foreach(it, &p->events) {
		if (tnl_container_of(it, struct event, node)->kind == EVENT_SIZE)
			return true;
	}
	return false;
}

static void on_size(void *ctx, unsigned cols, unsigned rows)
{
	struct event *e = event_new(ctx, EVENT_SIZE);
	if (e) {
		e->size.cols = cols;
		e->size.rows = rows;
	}
}

static void on_exit_code(void *ctx, int code)
{
	struct event *e = event_new(ctx, EVENT_EXIT);
	if (e)
		e->exit_code = code;
}

static void on_flag(void *ctx, uint32_t flag)
{
	struct event *e = event_new(ctx, EVENT_FLAG);
	if (e)
		e->flag = flag;
}

static void on_publication(void *ctx, bool started)
{
	struct event *e = event_new(ctx, EVENT_PUBLICATION);
	if (e)
		e->started = started;
}

static void on_kms(void *ctx, const struct tnl_kms_request *r)
{
	struct event *e = event_new(ctx, EVENT_KMS);
	if (!e)
		return;
	e->kms.generate = r->generate;
	e->kms.key_id = r->key_id ? tnl_strdup(r->key_id) : NULL;
	e->kms.challenge = r->challenge ? tnl_strdup(r->challenge) : NULL;
	e->kms.ciphertext = tnl_malloc(r->ciphertext_len ? r->ciphertext_len : 1);
	if (e->kms.ciphertext && r->ciphertext_len)
		memcpy(e->kms.ciphertext, r->ciphertext, r->ciphertext_len);
	e->kms.len = e->kms.ciphertext ? r->ciphertext_len : 0;
}

void td_pump_note_word(struct td_pump *p, const struct tnl_direct *d)
{
	struct event *e = event_new(p, EVENT_WORD);
	if (!e)
		return;
	e->word = tnl_malloc(sizeof(*d));
	if (e->word)
		*e->word = *d;
	else
		event_free(e); /* it is asked for again */
}

static void on_reverse(void *ctx, const struct tnl_reverse *word)
{
	struct event *e = event_new(ctx, EVENT_REVERSE);
	if (!e)
		return;
	e->reverse = tnl_malloc(sizeof(*word));
	if (e->reverse)
		*e->reverse = *word;
	else
		event_free(e);
}

static void on_closed(void *ctx, int err, const char *text)
{
	struct event *e = event_new(ctx, EVENT_CLOSED);
	if (e) {
		e->closed.err = err;
		e->closed.text = tnl_strdup(text ? text : "");
	}
}

const struct tnl_session_cb td_pump_session_cb = {
    .on_ready = on_ready,
    .on_open = on_open,
    .on_data = on_data,
    .on_eof = on_eof,
    .on_reset = on_reset,
    .on_connected = on_connected,
    .on_size = on_size,
    .on_exit_code = on_exit_code,
    .on_flag = on_flag,
    .on_publication = on_publication,
    .on_kms = on_kms,
    .on_reverse = on_reverse,
    .on_closed = on_closed,
};

/* ---- telling ------------------------------------------------------------------ */

static void tell_cancelled(struct td_pump *p, const struct event *e)
{
	if (!e->unheard && p->cb->cancelled)
		p->cb->cancelled(p->ctx, e->st);
	tnl_stream_free(e->st);
}

static void tell_kms(struct td_pump *p, const struct event *e)
{
	struct tnl_kms_request r = {.generate = e->kms.generate,
				    .key_id = e->kms.key_id,
				    .challenge = e->kms.challenge,
				    .ciphertext = e->kms.ciphertext,
				    .ciphertext_len = e->kms.len};
	if (p->cb->kms)
		p->cb->kms(p->ctx, &r);
	else
		tnl_session_kms_result(p->session, TNL_EREFUSED, NULL, 0, NULL, 0, "encryption not possible here",
				       p->loop->now);
}

static void tell_event(struct td_pump *p, const struct event *e)
{
	const struct td_pump_cb *cb = p->cb;
	switch (e->kind) {
	case EVENT_READY:
		if (cb->ready)
			cb->ready(p->ctx, tnl_session_info(p->session));
		break;
	case EVENT_OPEN:
		if (cb->open)
			cb->open(p->ctx, e->st);
		break;
	case EVENT_CANCELLED:
		tell_cancelled(p, e);
		break;
	case EVENT_FLAG:
		if (cb->flag)
			cb->flag(p->ctx, e->flag);
		break;
	case EVENT_SIZE:
		if (cb->size)
			cb->size(p->ctx, e->size.cols, e->size.rows);
		break;
	case EVENT_EXIT:
		if (cb->exit_code)
			cb->exit_code(p->ctx, e->exit_code);
		break;
	case EVENT_PUBLICATION:
		if (cb->publication)
			cb->publication(p->ctx, e->started);
		break;
	case EVENT_KMS:
		tell_kms(p, e);
		break;
	case EVENT_WORD:
		if (cb->direct_word)
			cb->direct_word(p->ctx, e->word);
		break;
	case EVENT_REVERSE:
		if (cb->reverse)
			cb->reverse(p->ctx, e->reverse);
		break;
	case EVENT_CLOSED:
		if (cb->closed)
			cb->closed(p->ctx, e->closed.err, e->closed.text ? e->closed.text : "");
		break;
	}
}

void td_pump_tell_events(struct td_pump *p)
{
	while (!p->dead && !tnl_list_empty(&p->events)) {
		struct event *e = tnl_container_of(p->events.next, struct event, node);
		tnl_list_remove(&e->node);
		if (e->st)
			tnl_stream_set_note(e->st, NULL);
		tell_event(p, e);
		e->st = NULL; /* it may be gone */
		event_free(e);
	}
}
