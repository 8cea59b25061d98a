/* The gateway role: it is set up from its part of the configuration, routes requests to the API and to the channels,
 * and takes on a new configuration while it runs. */
#include "tunneld/gateway/peer_internal.h"
#include "tunneld/gateway/rate_internal.h"
#include "lib/alloc.h"
#include "lib/enc.h"
#include "lib/num.h"
#include "tunneld/base/file.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

#define BODY_MAX (64u * 1024)

/* --- routing ----------------------------------------------------------------- */
static void count_refused(struct td_gateway *g, int status)
{
	char kind[16];
	snprintf(kind, sizeof(kind), "http_%d", status);
	gw_count(g, GW_C_HTTP_REFUSED);
	gw_refusal_count(g, kind);
}

static void refuse_request(struct td_gateway *g, struct td_request *r, int status, const char *field)
{
	count_refused(g, status);
	td_warn("gateway", NULL, "request refused peer=%s status=%d field=\"%s\"", td_request_peer(r), status, field);
	td_request_reply(r, status, "application/json", NULL, 0, "{}", 2);
}

static bool has_method(const struct tnl_http_head *h, const char *m)
{
	return h->method_len == strlen(m) && memcmp(h->method, m, h->method_len) == 0;
}

/* The one path segment behind a prefix, decoded; NULL: another path, or no plain id. */
static const char *id_behind(const char *prefix, const char *path, size_t n, struct tnl_buf *id)
{
	size_t p = strlen(prefix);
	if (n <= p || memcmp(path, prefix, p) != 0 || memchr(path + p, '/', n - p))
		return NULL;
	if (tnl_uri_decode(id, path + p, n - p) != 0)
		return NULL;
	for (size_t i = 0; i < tnl_buf_len(id); i++)
		if (tnl_buf_data(id)[i] <= ' ' || tnl_buf_data(id)[i] >= 127)
			return NULL;
	return tnl_buf_str(id);
}

static void route_channel(struct td_gateway *g, struct td_request *r, enum gw_role kind, const char *id)
{
	const struct tnl_http_head *h = td_request_head(r);
	if (has_method(h, "POST"))
		gw_channel_create(g, r, kind, id);
	else if (!has_method(h, "GET"))
		refuse_request(g, r, 405, "method");
	else if (!td_request_is_upgrade(r))
		refuse_request(g, r, 426, "Upgrade");
	else if (g->drain)
		refuse_request(g, r, 503, "shutting down");
	else if (kind != GW_CONTROL && gw_route_away(g, r, id))
		return;
	else
		gw_channel_upgrade(g, r, kind, id);
}

static void on_request(void *ctx, struct td_request *r)
{
	struct td_gateway *g = ctx;
	const struct tnl_http_head *h = td_request_head(r);
	const char *query = memchr(h->target, '?', h->target_len), *id;
	size_t n = query ? (size_t)(query - h->target) : h->target_len, tn = 0;
	if (n == 1) {
		const char *target = tnl_http_get(h, "X-Amz-Target", &tn);
		if (has_method(h, "POST"))
			gw_api_request(g, r, target, tn);
		else if (has_method(h, "HEAD")) /* is somebody there, and what time is it: nothing was refused */
			td_request_reply(r, 405, NULL, NULL, 0, NULL, 0);
		else
			refuse_request(g, r, 405, "method");
		return;
	}
	struct tnl_buf b;
	tnl_buf_init(&b, GW_ID_MAX);
	if ((id = id_behind("/v1/control-channel/", h->target, n, &b)) != NULL)
		route_channel(g, r, GW_CONTROL, id);
	else if ((id = id_behind("/v1/data-channel/", h->target, n, &b)) != NULL)
		route_channel(g, r, GW_CLIENT, id);
	else
		refuse_request(g, r, 404, "path");
	tnl_buf_fini(&b);
}

static void on_gone(void *ctx, struct td_request *r)
{
	struct gw_call *c = td_request_user(r);
	if (c)
		gw_call_gone(c);
}

static bool is_behind(void *ctx, const struct td_addr *peer)
{
	const struct td_gateway *g = ctx;
	return td_cidrs_have(&g->cfg->gw.proxy_protocol, peer);
}

static void on_refused(void *ctx, const char *peer, int status, const char *field)
{
	struct td_gateway *g = ctx;
	count_refused(g, status);
	td_warn("gateway", NULL, "request refused peer=%s status=%d field=\"%s\"", peer, status, field);
}

static void on_made_way(void *ctx)
{
	gw_count(ctx, GW_C_LIMIT_UNFINISHED_REQUESTS);
}

static void on_crowded(void *ctx)
{
	gw_room_make(ctx);
}

/* --- setting up ----------------------------------------------------------------- */
static uint64_t unix_time(void *ctx)
{
	return __atomic_load_n(&((struct td_loop *)ctx)->wall_ms, __ATOMIC_RELAXED) / 1000; /* workers ask as well */
}

/* A whole PEM file; NULL: *why. */
static char *read_pem(const char *path, const char *key, size_t *n, char *why, size_t cap)
{
	char *text = td_file_read(path, TD_FILE_SMALL, 0, n, NULL);
	if (!text)
		snprintf(why, cap, "%s %s: %s", key, path, td_file_trouble(errno));
	return text;
}

static struct tnl_tls_ctx *make_tls(struct td_loop *l, const struct td_gateway_config *c, char *why, size_t cap)
{
	struct tnl_tls_ctx *ctx = NULL;
	struct tnl_tls_config t = {.server = true,
				   .unix_time = unix_time,
				   .time_ctx = l,
				   .require_client_cert = c->client_ca != NULL};
	char *cert = read_pem(c->certificate, "certificate", &t.cert_pem_len, why, cap);
	char *key = cert ? read_pem(c->private_key, "private_key", &t.key_pem_len, why, cap) : NULL;
	char *ca = key && c->client_ca ? read_pem(c->client_ca, "client_ca", &t.ca_pem_len, why, cap) : NULL;
	char text[200] = "";
	if (cert && key && (ca || !c->client_ca)) {
		t.cert_pem = cert;
		t.key_pem = key;
		t.ca_pem = ca;
		ctx = tnl_tls_ctx_new(&t, text, sizeof(text));
		if (!ctx)
			snprintf(why, cap, "certificate %s, private_key %s: %s", c->certificate, c->private_key, text);
	}
	if (key)
		tnl_free_wiped(key, t.key_pem_len);
	tnl_free(cert);
	tnl_free(ca);
	return ctx;
}

/* What StreamUrl starts with: public_url, else the first listening address that is not a wildcard. */
static void set_public_url(struct td_gateway *g)
{
	const char *url = g->cfg->gw.public_url, *scheme = g->tls ? "wss" : "ws";
	g->public_url[0] = 0;
	if (url) {
		const char *rest = strstr(url, "://");
		bool plain = strncmp(url, "http://", 7) == 0 || strncmp(url, "ws://", 5) == 0;
		snprintf(g->public_url, sizeof(g->public_url), "%s://%s", plain ? "ws" : "wss", rest ? rest + 3 : url);
		for (size_t n = strlen(g->public_url); n && g->public_url[n - 1] == '/'; n--)
			g->public_url[n - 1] = 0;
		return;
	}
	static const struct in6_addr any6;
	struct td_addr a;
	char text[TD_ADDR_STR];
	if (!g->httpd || td_http_server_addr(g->httpd, 0, &a) != 0)
		return;
	bool any = a.sa.sa_family == AF_INET	? a.in.sin_addr.s_addr == 0
		   : a.sa.sa_family == AF_INET6 ? memcmp(&a.in6.sin6_addr, &any6, sizeof(any6)) == 0
						: true;
	if (!any) /* else the Host header of each request says it */
		snprintf(g->public_url, sizeof(g->public_url), "%s://%s", scheme, td_addr_str(&a, text));
}

static int load_kms(struct td_gateway *g, const struct td_gateway_config *c, struct gw_kms **kms, char *why, size_t cap)
{
	*kms = NULL;
	if (c->kms_key_file && !(*kms = gw_kms_load(c->kms_key_file, c->kms_key_id, c->region, why, cap)))
		return -1;
	return 0;
}

static void set_kms(struct td_gateway *g, struct gw_kms *kms)
{
	const char *id = g->cfg->gw.kms_key_id;
	gw_kms_free(g->kms);
	g->kms = kms;
	snprintf(g->kms_arn, sizeof(g->kms_arn), "%s", id ? id : gw_kms_arn(kms));
}

static int start_server(struct td_gateway *g, char *why, size_t cap)
{
	const struct td_http_server_config hc = {
	    .addrs = g->cfg->gw.addrs,
	    .naddrs = g->cfg->gw.naddrs,
	    .tls = g->tls,
	    .body_max = BODY_MAX,
	    .per_peer_max = g->cfg->gw.per_peer_connections,
	    .head_timeout_ns = 10 * TD_SEC,
	    .request = on_request,
	    .gone = on_gone,
	    .behind = is_behind,
	    .refused = on_refused,
	    .made_way = on_made_way,
	    .crowded = on_crowded,
	    .ctx = g,
	};
	g->httpd = td_http_server_new(g->l, &hc, why, cap);
	return g->httpd ? 0 : -1;
}

/* As bound: port 0 has become a number. */
static void log_addresses(struct td_gateway *g)
{
	struct td_addr a;
	char text[TD_ADDR_STR];
	for (int i = 0; i < g->cfg->gw.naddrs; i++)
		if (td_http_server_addr(g->httpd, i, &a) == 0)
			td_info("gateway", NULL, "listening address=%s", td_addr_str(&a, text));
}

struct td_gateway *td_gateway_new(struct td_loop *l, const struct td_config *cfg, char *why, size_t cap)
{
	struct gw_kms *kms;
	struct td_gateway *g = tnl_calloc(1, sizeof(*g));
	if (!g) {
		snprintf(why, cap, "out of memory");
		return NULL;
	}
	g->l = l;
	g->here = (struct gw_worker){.g = g, .l = l};
	tnl_list_init(&g->here.mails);
	g->cfg = td_config_ref(cfg);
	tnl_list_init(&g->active);
	tnl_list_init(&g->history);
	tnl_list_init(&g->links);
	tnl_list_init(&g->unverified);
	tnl_list_init(&g->calls);
	td_timer_init(&g->drain_timer, l, gw_drain_step, g);
	td_memory_on_room(&g->room, g->l, gw_relay_room, g);
	td_soon_init(&g->make_room, l, gw_room_make, g);
	td_soon_init(&g->go_on, l, gw_relay_room, g);
	gw_arrival_init(g);
	gw_records_init(g);
	gw_hear_init(g);
	g->stopped = gw_drain_at_once;
	g->sessions = tnl_map_new();
	g->instances = tnl_map_new();
	g->handed = tnl_map_new();
	g->pending = td_peers_new();
	snprintf(why, cap, "out of memory");
	if (!g->sessions || !g->instances || !g->handed || !g->pending || !gw_shares_init(g) || !gw_rates_init(g) ||
	    gw_keys_load(&cfg->gw, &g->keys, &g->marks) != 0 || gw_instances_load(g) != 0)
		goto fail;
	if (cfg->gw.certificate && !(g->tls = make_tls(l, &cfg->gw, why, cap)))
		goto fail;
	if (load_kms(g, &cfg->gw, &kms, why, cap) != 0)
		goto fail;
	set_kms(g, kms);
	if (cfg->gw.audit_log && !(g->audit = td_audit_open(l, "gateway", cfg->gw.audit_log, why, cap)))
		goto fail;
	if (gw_store_open(g, why, cap) != 0 || start_server(g, why, cap) != 0)
		goto fail;
	g->peers = gw_peers_new(g, why, cap);
	if (!g->peers && why[0])
		goto fail;
	if (gw_workers_start(g, cfg->gw.workers ? cfg->gw.workers : td_worker_cores(), why, cap) != 0)
		goto fail;
	log_addresses(g);
	set_public_url(g);
	return g;
fail:
	td_gateway_free(g);
	return NULL;
}

int td_gateway_addr(struct td_gateway *g, int i, struct td_addr *out)
{
	return td_http_server_addr(g->httpd, i, out);
}

/* --- reload ------------------------------------------------------------------------- */
static bool same_addr(const struct td_addr *a, const struct td_addr *b)
{
	return a->len == b->len && memcmp(&a->ss, &b->ss, a->len) == 0;
}

/* As configured before, or as bound (a port 0 that was written out). */
static bool same_listen(struct td_gateway *g, const struct td_gateway_config *c)
{
	struct td_addr bound;
	if (g->cfg->gw.naddrs != c->naddrs)
		return false;
	for (int i = 0; i < c->naddrs; i++)
		if (!same_addr(&g->cfg->gw.addrs[i], &c->addrs[i]) &&
		    (td_http_server_addr(g->httpd, i, &bound) != 0 || !same_addr(&bound, &c->addrs[i])))
			return false;
	return true;
}

int td_gateway_reload(struct td_gateway *g, const struct td_config *cfg, char *why, size_t cap)
{
	struct tnl_map *keys = NULL, *marks = NULL;
	struct tnl_tls_ctx *tls = NULL;
	struct gw_kms *kms = NULL;
	gw_workers_hold(g); /* they look at what is about to change */
	if (!same_listen(g, &cfg->gw)) {
		snprintf(why, cap,
			 "listen in [gateway] cannot be changed while it runs, so nothing of the gateway was; "
			 "restart it (sessions resume)");
		return -1;
	}
	if (cfg->gw.certificate && !(tls = make_tls(g->l, &cfg->gw, why, cap)))
		return -1;
	if (g->peers && cfg->gw.peer_listen && gw_peers_reload(g->peers, &cfg->gw, why, cap) != 0) {
		tnl_tls_ctx_free(tls);
		return -1;
	}
	gw_audit_more(g); /* into the log that it belongs to */
	if (load_kms(g, &cfg->gw, &kms, why, cap) != 0 || gw_keys_load(&cfg->gw, &keys, &marks) != 0 ||
	    td_audit_reload(&g->audit, g->l, "gateway", cfg->gw.audit_log, why, cap) != 0) {
		tnl_tls_ctx_free(tls);
		gw_kms_free(kms);
		gw_keys_free(keys, marks);
		return -1;
	}
	const struct td_config *old = g->cfg;
	g->cfg = td_config_ref(cfg);
	gw_keys_free(g->keys, g->marks);
	g->keys = keys;
	g->marks = marks;
	set_kms(g, kms);
	if (tls) {
		td_http_server_set_tls(g->httpd, tls);
		tnl_tls_ctx_free(g->tls);
		g->tls = tls;
	}
	set_public_url(g);
	if (gw_instances_load(g) != 0)
		td_error("gateway", NULL, "out of memory while loading instances");
	gw_shares_load(g);
	gw_sessions_recheck(g);
	gw_links_recheck(g);
	tnl_list_foreach_safe(it, &g->active)
		gw_session_rearm(tnl_container_of(it, struct gw_session, by_age));
	gw_arrival_recheck(g);
	td_config_free((struct td_config *)(uintptr_t)old);
	return 0;
}

/* --- the end ------------------------------------------------------------------------- */
void td_gateway_free(struct td_gateway *g)
{
	if (!g)
		return;
	gw_workers_stop(g);
	gw_records_fini(g);
	td_timer_stop(&g->drain_timer);
	td_timer_stop(&g->tell);
	td_memory_off_room(&g->room);
	td_soon_cancel(&g->arrival.soon);
	td_soon_cancel(&g->make_room);
	td_soon_cancel(&g->go_on);
	tnl_list_foreach_safe(it, &g->calls)
		gw_call_free(tnl_container_of(it, struct gw_call, node));
	gw_words_fini(g);
	tnl_list_foreach_safe(it, &g->links) {
		struct gw_link *l = tnl_container_of(it, struct gw_link, node);
		if (l->end) {
			gw_relay_forget(l);
			gw_link_drop(l); /* no pause_publication to an end that is freed next */
		} else {
			gw_link_free(l);
		}
	}
	tnl_list_foreach_safe(it, &g->active)
		gw_session_free(tnl_container_of(it, struct gw_session, by_age));
	tnl_list_foreach_safe(it, &g->history)
		gw_session_free(tnl_container_of(it, struct gw_session, by_age));
	gw_peers_free(g->peers);
	td_http_server_free(g->httpd);
	td_store_close(g->store); /* writes what is queued */
	if (g->instances)
		gw_instances_free(g);
	tnl_map_free(g->sessions);
	tnl_map_free(g->handed);
	gw_workers_free(g);
	gw_shares_fini(g);
	td_peers_free(g->pending);
	gw_rates_fini(g);
	gw_audit_more(g);
	gw_keys_free(g->keys, g->marks);
	gw_kms_free(g->kms);
	tnl_tls_ctx_free(g->tls);
	td_audit_close(g->audit);
	td_config_free((struct td_config *)(uintptr_t)g->cfg);
	tnl_free(g);
}
