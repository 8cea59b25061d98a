/* The store that the configuration names is opened, and the sessions in it become ours. */
#include "tunneld/gateway/shared_internal.h"
#include "lib/alloc.h"
#include "tunneld/base/file.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

#define SYSTEM_CA "/etc/ssl/certs/ca-certificates.crt"

static uint64_t unix_time(void *ctx)
{
	return ((struct td_loop *)ctx)->wall_ms / 1000;
}

static char *read_pem(const char *path, const char *key, size_t *n, char *why, size_t cap)
{
	char *text = td_file_read(path, TD_FILE_SMALL, 0, n, NULL);
	if (!text)
		snprintf(why, cap, "%s %s: %s", key, path, td_file_trouble(errno));
	return text;
}

/* Of rediss://, where we show the gateway's own certificate. */
struct tnl_tls_ctx *td_gateway_store_tls(struct td_loop *l, const struct td_gateway_config *c, char *why, size_t cap)
{
	const char *path = c->store_ca ? c->store_ca : SYSTEM_CA;
	struct tnl_tls_config t = {.unix_time = unix_time, .time_ctx = l};
	struct tnl_tls_ctx *ctx = NULL;
	char text[200] = "", *cert = NULL, *key = NULL;
	char *ca = read_pem(path, "store_ca", &t.ca_pem_len, why, cap);
	if (ca && c->certificate)
		cert = read_pem(c->certificate, "certificate", &t.cert_pem_len, why, cap);
	if (cert)
		key = read_pem(c->private_key, "private_key", &t.key_pem_len, why, cap);
	if (ca && (key || !c->certificate)) {
		t.ca_pem = ca;
		t.cert_pem = cert;
		t.key_pem = key;
		ctx = tnl_tls_ctx_new(&t, text, sizeof(text));
		if (!ctx)
			snprintf(why, cap, "store_ca %s: %s", path, text);
	}
	if (key)
		tnl_free_wiped(key, t.key_pem_len);
	tnl_free(cert);
	tnl_free(ca);
	return ctx;
}

int gw_store_open(struct td_gateway *g, char *why, size_t cap)
{
	const struct td_config *c = g->cfg;
	char spec[4200];
	struct tnl_tls_ctx *tls = NULL;
	bool over_tls = c->gw.store && strncmp(c->gw.store, "rediss:", 7) == 0;
	td_gateway_node(&c->gw, g->node);
	if (c->gw.store) {
		snprintf(spec, sizeof(spec), "%s", c->gw.store);
	} else if (c->state_dir) {
		snprintf(spec, sizeof(spec), "sqlite:%s/sessions.db", c->state_dir);
	} else {
		snprintf(why, cap,
			 "there is no place for session records: set store in [gateway] or state_dir in [tunneld]");
		return -1;
	}
	if (over_tls && !(tls = td_gateway_store_tls(g->l, &c->gw, why, cap)))
		return -1;
	const struct td_store_opts o = {
	    .spec = spec, .node = g->node, .peer = g->cfg->gw.peer_listen, .tls = tls, .cb = &gw_hear, .ctx = g};
	g->store = td_store_open(g->l, &o, why, cap);
	tnl_tls_ctx_free(tls);
	tnl_wipe(spec, sizeof(spec));
	if (!g->store)
		return -1;
	g->shared = td_store_is_shared(g->store);
	if (gw_sessions_restore(g) == 0)
		return 0;
	snprintf(why, cap, "store: session records cannot be read%s",
		 g->shared ? "" : "; move it away to start afresh");
	return -1;
}
