/* A WebSocket end and frames by hand. */
#ifndef WS_UTIL_H
#define WS_UTIL_H
#include "tests/unit/check.h"
#include "lib/alloc.h"
#include "lib/crypto.h"
#include "lib/enc.h"
#include "lib/ws.h"

#define SEC 1000000000ull

static inline struct tnl_ws *ws_new(bool server)
{
	struct tnl_ws_config c = {.server = server};
	struct tnl_ws *w = tnl_ws_new(&c, 0);

	assert_non_null(w);
	return w;
}

static inline void feed(struct tnl_ws *w, const void *p, size_t n)
{
	size_t cap;
	uint8_t *q = tnl_ws_in_reserve(w, &cap);

	assert_non_null(q);
	assert_true(cap >= n);
	memcpy(q, p, n);
	tnl_ws_in_commit(w, n, 0);
}

/* A frame as it stands on the wire. `len_form` 0: minimal, else 126 or 127. */
static inline size_t frame(uint8_t *out, uint8_t b0, bool mask, const void *data, size_t n, int len_form)
{
	static const uint8_t key[4] = {0x37, 0xfa, 0x21, 0x3d};
	size_t at = 2;

	out[0] = b0;
	if (!len_form)
		len_form = n < 126 ? 0 : n < 65536 ? 126 : 127;
	if (len_form == 126) {
		out[1] = 126;
		tnl_put_be16(out + 2, (uint16_t)n);
		at = 4;
	} else if (len_form == 127) {
		out[1] = 127;
		tnl_put_be64(out + 2, n);
		at = 10;
	} else {
		out[1] = (uint8_t)n;
	}
	if (mask) {
		out[1] |= 0x80;
		memcpy(out + at, key, 4);
		at += 4;
	}
	for (size_t i = 0; i < n; i++)
		out[at + i] = (uint8_t)(((const uint8_t *)data)[i] ^ (mask ? key[i & 3] : 0));
	return at + n;
}

static inline uint16_t queued_close(struct tnl_ws *w)
{
	size_t n, at = 2;
	const uint8_t *p = tnl_ws_out_peek(w, &n);
	uint8_t key[4] = {0}, code[2];

	/* the close frame is the last one; the tests that call this queue nothing else */
	if (n < 4 || p[0] != 0x88)
		return 0;
	if (p[1] & 0x80) {
		memcpy(key, p + 2, 4);
		at = 6;
	}
	code[0] = p[at] ^ key[0];
	code[1] = p[at + 1] ^ key[1];
	return tnl_get_be16(code);
}

static inline void expect_refused(bool server, const uint8_t *p, size_t n, int err, uint16_t code,
				  const char *fault_want)
{
	/* whole, and byte by byte */
	for (int bytewise = 0; bytewise < 2; bytewise++) {
		struct tnl_ws *w = ws_new(server);
		struct tnl_ws_event ev;
		const char *fault = NULL;
		int rc = TNL_EAGAIN;

		if (!bytewise) {
			feed(w, p, n);
			while ((rc = tnl_ws_next(w, &ev, 0, &fault)) == 1)
				;
		}
		for (size_t i = 0; bytewise && i < n && rc == TNL_EAGAIN; i++) {
			feed(w, p + i, 1);
			while ((rc = tnl_ws_next(w, &ev, 0, &fault)) == 1)
				;
		}
		if (rc != err || strcmp(fault ? fault : "", fault_want) != 0)
			fail_msg("got %s \"%s\", want %s \"%s\"", tnl_err_name(rc), fault ? fault : "",
				 tnl_err_name(err), fault_want);
		assert_int_equal(queued_close(w), code);
		/* it stays refused, and nothing more is sent */
		assert_int_equal(tnl_ws_next(w, &ev, 0, NULL), err);
		assert_int_equal(tnl_ws_send(w, TNL_WS_BINARY, "x", 1), TNL_ECLOSED);
		tnl_ws_free(w);
	}
}

static inline bool no_more_sending(struct tnl_ws *w)
{
	return tnl_ws_send(w, TNL_WS_BINARY, "x", 1) == TNL_ECLOSED;
}

#endif
