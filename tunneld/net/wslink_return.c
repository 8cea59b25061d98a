/* A connection that was upgraded speaks HTTP again when the WebSocket on it is over, so that the next session of these
 * two ends needs no new one: TCP, TLS and a round trip or three.
 *
 * RFC 6455 knows no such thing, so both ends have to want it: the client puts a value that only the two ends of this
 * TLS connection can know into the upgrade's head, and the server, which finds the same, says in its 101 that it will.
 * Whoever ends TLS in between has other values on his two sides: then it stays as it was, and he sees no request pass
 * that he takes for a WebSocket's bytes.  Each end goes back to HTTP when it has sent a close frame and seen the
 * other's. */
#include "tunneld/net/wslink_internal.h"

#include "lib/alloc.h"
#include "lib/enc.h"
#include "lib/num.h"

#include <string.h>

bool td_wslink_return_proof(struct td_conn *c, char out[WSLINK_PROOF])
{
	uint8_t raw[32];
	struct tnl_tls *t = td_conn_tls(c);
	if (!t || tnl_tls_export(t, "EXPORTER-tunneld-return", raw, sizeof(raw)) != 0)
		return false;
	tnl_hex(raw, sizeof(raw), out);
	return true;
}

struct td_conn *td_wslink_return(struct td_wslink *w, struct tnl_buf *bytes)
{
	const uint8_t *rest;
	size_t n;
	struct td_conn *c = w->conn;
	if (!w->returns || w->err != TNL_EEOF || !c || !tnl_ws_is_over(w->ws, &rest, &n) || !td_conn_room(c) ||
	    (n && tnl_buf_put(bytes, rest, n) != 0))
		return NULL;
	w->conn = NULL;
	td_conn_pause(c, false); /* it was since the end of the WebSocket */
	return c;
}

/* --- the client's end ------------------------------------------------------------- */

static void on_message(void *ctx, enum tnl_ws_op op, uint8_t *p, size_t n) {}

/* It has ended. */
static void go_back(struct td_wslink *w)
{
	struct tnl_buf early;
	tnl_buf_init(&early, 0); /* nothing was asked for: nothing may have come */
	td_http_lease_end(&w->lease, td_wslink_return(w, &early));
	tnl_buf_fini(&early);
	td_wslink_free(w);
}

static void on_closed(void *ctx, int err, uint16_t code, int http_status, const char *why)
{
	go_back(ctx);
}

static const struct td_wslink_cb retired = {.message = on_message, .closed = on_closed};

static void on_gone(struct td_http_lease *e)
{
	struct td_wslink *w = tnl_container_of(e, struct td_wslink, lease);
	w->returns = false;
	if (w->cb.closed == on_closed)
		td_wslink_free(w);
}

void td_wslink_lease(struct td_wslink *w, struct td_http_kept *k, const char *place)
{
	td_http_lease_begin(&w->lease, k, place, on_gone);
	w->returns = w->lease.kept != NULL;
}

void td_wslink_retire(struct td_wslink *w)
{
	if (!w || !w->lease.kept) {
		td_wslink_free(w);
	} else if (w->state == WSL_OPEN) {
		td_wslink_set_cb(w, &retired, w);
		td_wslink_close(w, 1000, "");
	} else {
		go_back(w);
	}
}
