/* WebSocket frames.  Whole unfragmented data frames, which is what the protocol
 * consists of, take a short way of our own: unmasked in place where they were
 * received, and sent in one pass that copies and masks.  Fragments are put together
 * in one buffer, so that a message takes the memory of its bytes in however many
 * pieces it comes.  Control frames go through wslay one at a time, after their
 * header was checked here, so that each fault has its name and its close code. */
#include "lib/ws.h"
#include "lib/num.h"
#include "lib/alloc.h"
#include "lib/crypto.h"
#include "lib/enc.h"
#include "lib/ws_internal.h"
#include <string.h>
#include <wslay/wslay.h>

#define IN_STEP (64u * 1024)
#define STEP_LEAST (4u * 1024)
#define OUT_DEFAULT (512u * 1024)
#define CONTROL_ROOM (16u * 1024) /* beyond out_max, for pings, pongs and close frames */
#define CONTROL_MAX (125u + 6u)
#define PONG_NS 20000000000ull
#define NEVER UINT64_MAX

enum { FRAME_CONT = 0 };

struct tnl_ws {
	wslay_event_context_ptr wslay;
	struct tnl_ws_config conf;
	struct tnl_buf in, out;
	struct tnl_buf msg;   /* what wslay delivered */
	struct tnl_buf frags; /* of the message that is coming */
	const uint8_t *slice; /* the frame that wslay is reading */
	size_t slice_len;
	uint64_t next_ping, pong_by;
	size_t clear; /* bytes of a binary frame to unmask */
	int err;      /* sticky failure of the input side */
	const char *fault;
	uint8_t msg_op, frag_op;
	bool msg_done, nomem;
	bool in_fragment;
	bool closing, got_close, mute;
};

struct header {
	uint8_t op;
	bool fin, masked;
	uint64_t len;
	size_t size; /* of the header itself */
	uint8_t key[4];
};

/* --- wslay's callbacks ------------------------------------------------------ */

static ssize_t on_recv(wslay_event_context_ptr c, uint8_t *buf, size_t len, int flags, void *user)
{
	struct tnl_ws *w = user;

	if (!w->slice_len) {
		wslay_event_set_error(c, WSLAY_ERR_WOULDBLOCK);
		return -1;
	}
	len = TNL_MIN(len, w->slice_len);
	memcpy(buf, w->slice, len);
	w->slice += len;
	w->slice_len -= len;
	return (ssize_t)len;
}

static ssize_t on_send(wslay_event_context_ptr c, const uint8_t *p, size_t len, int flags, void *user)
{
	struct tnl_ws *w = user;

	if (tnl_buf_put(&w->out, p, len) != 0) {
		w->out.failed = false;
		wslay_event_set_error(c, WSLAY_ERR_WOULDBLOCK);
		return -1;
	}
	return (ssize_t)len;
}

static int on_mask(wslay_event_context_ptr c, uint8_t *buf, size_t len, void *user)
{
	tnl_random(buf, len);
	return 0;
}

static void on_message(wslay_event_context_ptr c, const struct wslay_event_on_msg_recv_arg *m, void *user)
{
	struct tnl_ws *w = user;
	tnl_buf_reset(&w->msg);
	if (m->msg_length && tnl_buf_put(&w->msg, m->msg, m->msg_length) != 0)
		w->nomem = true;
	w->msg_op = m->opcode;
	w->msg_done = true;
}

/* How much may be read at a time: a link that nobody has vouched for gets no buffer for more than its message. */
static size_t in_step(const struct tnl_ws *w)
{
	return w->conf.whole_only ? STEP_LEAST : IN_STEP;
}

/* --- making ------------------------------------------------------------------ */

struct tnl_ws *tnl_ws_new(const struct tnl_ws_config *c, uint64_t now)
{
	static const struct wslay_event_callbacks cb = {
	    .recv_callback = on_recv,
	    .send_callback = on_send,
	    .genmask_callback = on_mask,
	    .on_msg_recv_callback = on_message,
	};
	struct tnl_ws *w = tnl_calloc(1, sizeof(*w));

	if (!w)
		return NULL;
	w->conf = *c;
	if (!w->conf.max_message)
		w->conf.max_message = TNL_WS_MAX_MESSAGE;
	if (!w->conf.pong_ns)
		w->conf.pong_ns = PONG_NS;
	if (!w->conf.out_max)
		w->conf.out_max = OUT_DEFAULT + w->conf.max_message;
	if ((c->server ? wslay_event_context_server_init : wslay_event_context_client_init)(&w->wslay, &cb, w) != 0) {
		tnl_free(w);
		return NULL;
	}
	tnl_buf_init(&w->out, w->conf.out_max + CONTROL_ROOM);
	tnl_buf_init(&w->msg, CONTROL_MAX);
	tnl_ws_set_input(w, w->conf.max_message, w->conf.whole_only);
	tnl_ws_set_clear(w, SIZE_MAX);
	w->next_ping = w->conf.ping_ns ? now + w->conf.ping_ns : NEVER;
	w->pong_by = NEVER;
	return w;
}

void tnl_ws_set_input(struct tnl_ws *w, size_t max_message, bool whole_only)
{
	w->conf.max_message = max_message;
	w->conf.whole_only = whole_only;
	wslay_event_config_set_max_recv_msg_length(w->wslay, TNL_MAX(max_message, (size_t)CONTROL_MAX));
	w->in.max = max_message + TNL_WS_MAX_OVERHEAD + in_step(w);
	w->frags.max = max_message;
}

void tnl_ws_set_clear(struct tnl_ws *w, size_t n)
{
	w->clear = n;
}

void tnl_ws_mute(struct tnl_ws *w, bool mute)
{
	w->mute = mute;
}

void tnl_ws_free(struct tnl_ws *w)
{
	if (!w)
		return;
	wslay_event_context_free(w->wslay);
	tnl_buf_fini(&w->in);
	tnl_buf_fini(&w->out);
	tnl_buf_fini(&w->msg);
	tnl_buf_fini(&w->frags);
	tnl_free(w);
}

void tnl_ws_settle(struct tnl_ws *w)
{
	tnl_buf_settle(&w->in);
	tnl_buf_settle(&w->out);
	tnl_buf_reset(&w->msg);
	tnl_buf_trim(&w->msg);
	if (!w->in_fragment) {
		tnl_buf_reset(&w->frags);
		tnl_buf_settle(&w->frags);
	}
}

/* --- input ------------------------------------------------------------------- */

uint8_t *tnl_ws_in_reserve(struct tnl_ws *w, size_t *cap)
{
	size_t room;
	uint8_t *p;

	if (w->err || w->got_close)
		tnl_buf_reset(&w->in); /* nobody will read it any more */
	room = tnl_buf_room(&w->in);
	room = TNL_MIN(room, in_step(w));
	p = room ? tnl_buf_reserve(&w->in, room) : NULL;
	w->in.failed = false;
	*cap = p ? room : 0;
	return p;
}

void tnl_ws_in_commit(struct tnl_ws *w, size_t n, uint64_t now)
{
	tnl_buf_commit(&w->in, n);
	if (n)
		w->pong_by = NEVER;
}

/* Lets wslay put what it has queued behind the frames of our own. */
static void flush_wslay(struct tnl_ws *w)
{
	if (wslay_event_send(w->wslay) == WSLAY_ERR_NOMEM)
		w->nomem = true;
	if (wslay_event_get_close_sent(w->wslay))
		w->closing = true;
}

static int refuse_frame(struct tnl_ws *w, int err, uint16_t code, const char *fault)
{
	w->err = err;
	w->fault = fault;
	if (!w->closing)
		wslay_event_queue_close(w->wslay, code, NULL, 0);
	w->closing = true;
	flush_wslay(w);
	tnl_buf_reset(&w->in);
	return err;
}

/* Length field: minimal, and its top bit clear. 1: parsed, 0: more bytes needed, -1: malformed. */
static int parse_length(const uint8_t *p, size_t n, struct header *h)
{
	h->len = p[1] & 0x7f;
	h->size = 2;
	if (h->len == 126) {
		if (n < 4)
			return 0;
		h->len = tnl_get_be16(p + 2);
		h->size = 4;
		return h->len < 126 ? -1 : 1;
	}
	if (h->len == 127) {
		if (n < 10)
			return 0;
		h->len = tnl_get_be64(p + 2);
		h->size = 10;
		return h->len < 65536 || h->len >> 63 ? -1 : 1;
	}
	return 1;
}

/* Sequence rules: continuation frames only inside a message, control frames whole and short. */
static const char *check_kind(const struct tnl_ws *w, const struct header *h)
{
	switch (h->op) {
	case FRAME_CONT:
		return w->in_fragment ? NULL : "continuation";
	case TNL_WS_TEXT:
	case TNL_WS_BINARY:
		return w->in_fragment || (!h->fin && w->conf.whole_only) ? "fragment" : NULL;
	case TNL_WS_CLOSE:
	case TNL_WS_PING:
	case TNL_WS_PONG:
		return !h->fin ? "fragmented control frame" : h->len > 125 ? "control frame length" : NULL;
	default:
		return "opcode";
	}
}

/* 1: *h is good and complete; TNL_EAGAIN; else refused. */
static int parse_header(struct tnl_ws *w, struct header *h)
{
	const uint8_t *p = tnl_buf_data(&w->in);
	size_t n = tnl_buf_len(&w->in);
	const char *fault;
	int rc;

	if (n < 2)
		return TNL_EAGAIN;
	h->op = p[0] & 0x0f;
	h->fin = p[0] & 0x80;
	h->masked = p[1] & 0x80;
	if (p[0] & 0x70)
		return refuse_frame(w, TNL_EPROTO, 1002, "reserved bits");
	if (h->masked != w->conf.server)
		return refuse_frame(w, TNL_EPROTO, 1002, "mask bit");
	rc = parse_length(p, n, h);
	if (h->op & 8 && (p[1] & 0x7f) > 125)
		h->len = p[1] & 0x7f; /* too long for a control frame, whatever follows */
	fault = check_kind(w, h);
	if (fault)
		return refuse_frame(w, TNL_EPROTO, 1002, fault);
	if (rc < 0)
		return refuse_frame(w, TNL_EPROTO, 1002, "length");
	if (rc == 0)
		return TNL_EAGAIN;
	if (!(h->op & 8) && h->len > w->conf.max_message - (h->op == FRAME_CONT ? tnl_buf_len(&w->frags) : 0))
		return refuse_frame(w, TNL_ETOOBIG, 1009, "size");
	if (h->masked) {
		if (n < h->size + 4)
			return TNL_EAGAIN;
		memcpy(h->key, p + h->size, 4);
		h->size += 4;
	}
	return 1;
}

/* The short way: a whole data frame, handed out where it lies. */
static int take_data(struct tnl_ws *w, const struct header *h, struct tnl_ws_event *ev)
{
	uint8_t *p = w->in.base + w->in.head + h->size;
	size_t n = (size_t)h->len;
	size_t clear = h->masked && h->op == TNL_WS_BINARY ? TNL_MIN(n, w->clear) : n;

	if (h->masked)
		tnl_ws_mask(p, p, clear, h->key);
	tnl_buf_consume(&w->in, h->size + n);
	if (h->op == TNL_WS_TEXT && !tnl_utf8_valid(p, n))
		return refuse_frame(w, TNL_ESYNTAX, 1007, "utf-8");
	*ev = (struct tnl_ws_event){.op = (enum tnl_ws_op)h->op, .data = p, .len = n, .clear = clear};
	if (clear < n)
		memcpy(ev->key, h->key, sizeof(ev->key));
	return 1;
}

void tnl_ws_unmask(struct tnl_ws_event *ev)
{
	tnl_ws_mask(ev->data + ev->clear, ev->data + ev->clear, ev->len - ev->clear, ev->key);
	ev->clear = ev->len;
}

/* A part of a message; 1 with the whole in *ev when it is the last, else 0. */
static int take_fragment(struct tnl_ws *w, const struct header *h, struct tnl_ws_event *ev)
{
	uint8_t *p = w->in.base + w->in.head + h->size;
	size_t n = (size_t)h->len;

	if (h->op != FRAME_CONT) {
		tnl_buf_reset(&w->frags);
		w->frag_op = h->op;
	}
	if (h->masked)
		tnl_ws_mask(p, p, n, h->key);
	if (tnl_buf_put(&w->frags, p, n) != 0)
		return w->err = TNL_ENOMEM;
	tnl_buf_consume(&w->in, h->size + n);
	w->in_fragment = !h->fin;
	if (!h->fin)
		return 0;
	p = (uint8_t *)(uintptr_t)tnl_buf_data(&w->frags);
	n = tnl_buf_len(&w->frags);
	if (w->frag_op == TNL_WS_TEXT && !tnl_utf8_valid(p, n))
		return refuse_frame(w, TNL_ESYNTAX, 1007, "utf-8");
	*ev = (struct tnl_ws_event){.op = (enum tnl_ws_op)w->frag_op, .data = p, .len = n, .clear = n};
	return 1;
}

/* A ping that cannot be answered for want of room: the peer does not read, and
 * only the latest ping needs an answer. */
static bool pong_would_not_fit(const struct tnl_ws *w)
{
	return w->mute || tnl_buf_room(&w->out) < 2 * CONTROL_MAX; /* the other share is for a close frame */
}

static int wslay_fault(struct tnl_ws *w)
{
	if (w->nomem)
		return w->err = TNL_ENOMEM;
	return refuse_frame(w, TNL_EPROTO, WSLAY_CODE_PROTOCOL_ERROR, "frame");
}

/* Not through wslay, which lets some malformed ones pass and refuses 1012 to 1014, which came after RFC 6455. It is
 * answered with what stands in it. */
static int take_close(struct tnl_ws *w, const struct header *h, struct tnl_ws_event *ev)
{
	size_t n = (size_t)h->len;
	const uint8_t *p;
	unsigned code;

	tnl_buf_reset(&w->msg);
	if (tnl_buf_put(&w->msg, tnl_buf_data(&w->in) + h->size, n) != 0)
		return w->err = TNL_ENOMEM;
	if (n && h->masked)
		tnl_ws_mask(w->msg.base + w->msg.head, tnl_buf_data(&w->msg), n, h->key);
	p = tnl_buf_data(&w->msg);
	code = n >= 2 ? tnl_get_be16(p) : 0;
	/* RFC 6455 section 7.4: 1004 to 1006 and 1015 may not stand on the wire, nor what nobody registered. */
	if (n && !((code >= 1000 && code <= 1014 && !(code >= 1004 && code <= 1006)) || (code >= 3000 && code <= 4999)))
		return refuse_frame(w, TNL_EPROTO, 1002, "close code");
	if (n && !tnl_utf8_valid(p + 2, n - 2))
		return refuse_frame(w, TNL_ESYNTAX, 1007, "utf-8");
	tnl_buf_consume(&w->in, h->size + n);
	w->got_close = true;
	n = n ? n - 2 : 0;
	*ev = (struct tnl_ws_event){.op = TNL_WS_CLOSE,
				    .data = (uint8_t *)(uintptr_t)p + (code ? 2 : 0),
				    .len = n,
				    .clear = n,
				    .close_code = code ? (uint16_t)code : 1005};
	if (!w->closing && wslay_event_queue_close(w->wslay, (uint16_t)code, ev->data, ev->len) != 0)
		return w->err = TNL_ENOMEM;
	w->closing = true;
	flush_wslay(w);
	return 1;
}

/* The long way: a ping or pong through wslay. 1: *ev filled; 0: nothing to tell yet. */
static int take_control(struct tnl_ws *w, const struct header *h, struct tnl_ws_event *ev)
{
	size_t n = h->size + (size_t)h->len;

	if (h->op == TNL_WS_PING && (w->closing || pong_would_not_fit(w)))
		return take_data(w, h, ev);
	if (h->op == TNL_WS_CLOSE)
		return take_close(w, h, ev);
	w->slice = tnl_buf_data(&w->in);
	w->slice_len = n;
	w->msg_done = false;
	if (wslay_event_recv(w->wslay) == WSLAY_ERR_NOMEM)
		w->nomem = true;
	tnl_buf_consume(&w->in, n);
	flush_wslay(w);
	if (w->nomem || w->slice_len || !w->msg_done)
		return wslay_fault(w);
	*ev = (struct tnl_ws_event){.op = (enum tnl_ws_op)w->msg_op,
				    .data = (uint8_t *)(uintptr_t)tnl_buf_data(&w->msg),
				    .len = tnl_buf_len(&w->msg),
				    .clear = tnl_buf_len(&w->msg)};
	return 1;
}

int tnl_ws_next(struct tnl_ws *w, struct tnl_ws_event *ev, uint64_t now, const char **fault)
{
	struct header h;
	int rc;

	while (!(rc = w->err)) {
		if (w->got_close) {
			tnl_buf_reset(&w->in);
			return TNL_EAGAIN;
		}
		rc = parse_header(w, &h);
		if (rc == TNL_EAGAIN)
			return rc;
		if (rc != 1)
			break;
		if (tnl_buf_len(&w->in) - h.size < h.len)
			return TNL_EAGAIN;
		rc = h.op & 8			   ? take_control(w, &h, ev)
		     : h.fin && h.op != FRAME_CONT ? take_data(w, &h, ev)
						   : take_fragment(w, &h, ev);
		if (rc == 1)
			return 1;
		if (rc != 0)
			break;
	}
	if (fault)
		*fault = w->fault ? w->fault : "memory";
	return rc;
}

/* --- output ------------------------------------------------------------------ */

static size_t write_header(const struct tnl_ws *w, uint8_t *p, enum tnl_ws_op op, size_t n, uint8_t key[4])
{
	size_t at = 2;

	p[0] = (uint8_t)(0x80 | op);
	if (n < 126) {
		p[1] = (uint8_t)n;
	} else if (n < 65536) {
		p[1] = 126;
		tnl_put_be16(p + 2, (uint16_t)n);
		at = 4;
	} else {
		p[1] = 127;
		tnl_put_be64(p + 2, n);
		at = 10;
	}
	if (!w->conf.server) {
		p[1] |= 0x80;
		tnl_random(key, 4);
		memcpy(p + at, key, 4);
		at += 4;
	}
	return at;
}

/* own: zeros at a server. What is masked by another key changes from that to ours in one pass. */
static void put_payload(const struct tnl_ws *w, uint8_t *to, const struct tnl_ws_event *ev, const uint8_t own[4])
{
	uint8_t key[4];

	for (int i = 0; i < 4; i++)
		key[i] = ev->key[i] ^ own[i];
	if (w->conf.server && ev->clear)
		memcpy(to, ev->data, ev->clear);
	else if (ev->clear)
		tnl_ws_mask(to, ev->data, ev->clear, own);
	if (ev->clear < ev->len)
		tnl_ws_mask(to + ev->clear, ev->data + ev->clear, ev->len - ev->clear, key);
}

int tnl_ws_send_on(struct tnl_ws *w, const struct tnl_ws_event *ev)
{
	bool control = ev->op == TNL_WS_PING || ev->op == TNL_WS_PONG;
	uint8_t key[4] = {0}, *p;
	size_t size;

	if (w->closing)
		return TNL_ECLOSED;
	if (ev->op == TNL_WS_CLOSE || (control && ev->len > 125))
		return TNL_EINVAL;
	if (control ? pong_would_not_fit(w) : ev->len > tnl_ws_out_room(w))
		return TNL_EAGAIN;
	p = tnl_buf_reserve(&w->out, ev->len + TNL_WS_MAX_OVERHEAD);
	if (!p)
		return TNL_ENOMEM;
	size = write_header(w, p, ev->op, ev->len, key);
	put_payload(w, p + size, ev, key);
	tnl_buf_commit(&w->out, size + ev->len);
	return 0;
}

int tnl_ws_send(struct tnl_ws *w, enum tnl_ws_op op, const void *data, size_t n)
{
	const struct tnl_ws_event ev = {.op = op, .data = (uint8_t *)(uintptr_t)data, .len = n, .clear = n};

	return tnl_ws_send_on(w, &ev);
}

int tnl_ws_close(struct tnl_ws *w, uint16_t code, const char *reason)
{
	size_t n = reason && *reason ? tnl_utf8_cut(reason, strlen(reason), 123) : 0;

	if (w->closing)
		return TNL_ECLOSED;
	if (wslay_event_queue_close(w->wslay, code, (const uint8_t *)reason, n) != 0)
		return TNL_EINVAL;
	w->closing = true;
	flush_wslay(w);
	return 0;
}

bool tnl_ws_is_over(const struct tnl_ws *w, const uint8_t **rest, size_t *n)
{
	*rest = tnl_buf_data(&w->in);
	*n = tnl_buf_len(&w->in);
	return w->got_close && w->closing && !w->err && !tnl_buf_len(&w->out);
}

size_t tnl_ws_out_room(const struct tnl_ws *w)
{
	size_t used = tnl_buf_len(&w->out) + TNL_WS_MAX_OVERHEAD;

	return used < w->conf.out_max ? w->conf.out_max - used : 0;
}

const uint8_t *tnl_ws_out_peek(struct tnl_ws *w, size_t *n)
{
	*n = tnl_buf_len(&w->out);
	return tnl_buf_data(&w->out);
}

void tnl_ws_out_consume(struct tnl_ws *w, size_t n)
{
	tnl_buf_consume(&w->out, n);
}

/* --- time --------------------------------------------------------------------- */

uint64_t tnl_ws_deadline(const struct tnl_ws *w)
{
	return w->closing ? w->pong_by : TNL_MIN(w->next_ping, w->pong_by);
}

int tnl_ws_expire(struct tnl_ws *w, uint64_t now)
{
	if (now >= w->pong_by)
		return TNL_ETIMEOUT;
	if (now < w->next_ping || w->closing)
		return 0;
	/* A ping that found no room waits behind a peer that does not read: the clock runs all the same. */
	if (tnl_ws_send(w, TNL_WS_PING, "keepalive", 9) == TNL_ENOMEM)
		return TNL_ENOMEM;
	w->next_ping = now + w->conf.ping_ns;
	if (w->pong_by == NEVER)
		w->pong_by = now + w->conf.pong_ns;
	return 0;
}

int tnl_ws_ping(struct tnl_ws *w, uint64_t now)
{
	int rc = w->closing ? TNL_ECLOSED : tnl_ws_send(w, TNL_WS_PING, "keepalive", 9);

	if (!w->closing && rc != TNL_ENOMEM && w->pong_by == NEVER)
		w->pong_by = now + w->conf.pong_ns;
	return rc;
}

void tnl_ws_alive(struct tnl_ws *w, uint64_t now)
{
	if (w->pong_by != NEVER)
		w->pong_by = now + w->conf.pong_ns;
}
