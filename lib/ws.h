/* WebSocket (RFC 6455) after the upgrade: bytes in, bytes out.
 * Data frames are framed, masked and unmasked by our own code (64-bit XOR) with
 * a fast path for whole unfragmented frames and one buffer for those that come in
 * fragments; wslay holds the state for control frames and closing.  Own messages are
 * sent unfragmented. */
#ifndef TNL_WS_H
#define TNL_WS_H
#include "lib/buf.h"
#include <stdbool.h>
#include <stdint.h>

#define TNL_WS_MAX_MESSAGE (256u * 1024)
#define TNL_WS_MAX_OVERHEAD 14u

enum tnl_ws_op { TNL_WS_TEXT = 1, TNL_WS_BINARY = 2, TNL_WS_CLOSE = 8, TNL_WS_PING = 9, TNL_WS_PONG = 10 };

struct tnl_ws_config {
	bool server;
	size_t max_message; /* 0: TNL_WS_MAX_MESSAGE; more: close 1009, TNL_ETOOBIG */
	bool whole_only;    /* no fragments: close 1002, TNL_EPROTO */
	uint64_t ping_ns;   /* interval of pings, 0: none */
	uint64_t pong_ns;   /* how long a pong may take; default 20 s; received data counts as a sign of life */
	size_t out_max;	    /* framed bytes that may wait; 0: 512 KiB + one message */
};
struct tnl_ws;
struct tnl_ws_event {
	enum tnl_ws_op op; /* TEXT, BINARY, CLOSE, PING, PONG */
	uint8_t *data;
	size_t len;	     /* valid until the next call on this object; writable */
	uint16_t close_code; /* CLOSE: 1005 when none was given */
	size_t clear;	     /* from here on data is still masked with `key` (tnl_ws_set_clear); else len */
	uint8_t key[4];
};

struct tnl_ws *tnl_ws_new(const struct tnl_ws_config *c, uint64_t now);
void tnl_ws_free(struct tnl_ws *w);
/* From the next frame on. */
void tnl_ws_set_input(struct tnl_ws *w, size_t max_message, bool whole_only);

/* Of a whole binary frame only so many bytes at the front are unmasked, a multiple of 4: for who looks at a header and
 * sends the whole on (tnl_ws_send_on), so that a byte is unmasked on its way into the other end's output. SIZE_MAX:
 * all. */
void tnl_ws_set_clear(struct tnl_ws *w, size_t n);
void tnl_ws_unmask(struct tnl_ws_event *ev); /* the rest after all, in place */

/* Input: reserve/commit straight from the lower layer. */
uint8_t *tnl_ws_in_reserve(struct tnl_ws *w, size_t *cap); /* at least 4 KiB when called after next() gave EAGAIN */
void tnl_ws_in_commit(struct tnl_ws *w, size_t n, uint64_t now);
/* 1: *ev filled; TNL_EAGAIN: feed more; TNL_EPROTO/TNL_ETOOBIG/TNL_ESYNTAX: a close
 * frame with the right code is queued, *fault (may be NULL) names the field
 * ("mask bit", "reserved bits", "length", "utf-8", …): flush and drop.
 * Pings are answered by itself (event all the same). */
int tnl_ws_next(struct tnl_ws *w, struct tnl_ws_event *ev, uint64_t now, const char **fault) TNL_MUST_USE;

/* Output: appends one frame. TNL_EAGAIN when it does not fit under out_max. */
int tnl_ws_send(struct tnl_ws *w, enum tnl_ws_op op, const void *p, size_t n) TNL_MUST_USE;
/* The same with what tnl_ws_next of another one gave. */
int tnl_ws_send_on(struct tnl_ws *w, const struct tnl_ws_event *ev) TNL_MUST_USE;
int tnl_ws_close(struct tnl_ws *w, uint16_t code, const char *reason);
void tnl_ws_mute(struct tnl_ws *w, bool mute);	/* pings are read, and not answered */
size_t tnl_ws_out_room(const struct tnl_ws *w); /* payload bytes that send would take now */
const uint8_t *tnl_ws_out_peek(struct tnl_ws *w, size_t *n);
void tnl_ws_out_consume(struct tnl_ws *w, size_t n);
/* Has either end sent its close frame, and ours been taken?  What follows on the connection is of something else: *rest
 * is what came of that. */
bool tnl_ws_is_over(const struct tnl_ws *w, const uint8_t **rest, size_t *n);

uint64_t tnl_ws_deadline(const struct tnl_ws *w);  /* UINT64_MAX: none */
int tnl_ws_expire(struct tnl_ws *w, uint64_t now); /* queues pings; TNL_ETIMEOUT: no pong */
int tnl_ws_ping(struct tnl_ws *w, uint64_t now);   /* one out of turn: after a sleep */
/* Nobody read for a while: a pong that is due has its whole time again. */
void tnl_ws_alive(struct tnl_ws *w, uint64_t now);
void tnl_ws_settle(struct tnl_ws *w); /* gives empty buffers' memory back: call after events */

#endif
