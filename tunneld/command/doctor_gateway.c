/* A gateway's configuration: its certificate, the store, the other nodes, the addresses.  What a gateway that runs with
 * it says goes before what can be tried from here: the store is its, and the nodes know only each other. */
#include "tunneld/command/doctor.h"

#include "lib/alloc.h"
#include "lib/http.h"
#include "lib/num.h"
#include "tunneld/base/file.h"
#include "tunneld/gateway/gateway.h"
#include "tunneld/net/redis.h"

#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { DAYS_WARN = 14, DAY = 86400 };

static void tell_certificate(struct td_doctor *d)
{
	const struct td_gateway_config *g = &d->cfg->gw;
	struct tnl_url u;
	const char *fault;
	uint64_t from = 0, until = 0, now = (uint64_t)time(NULL);
	size_t n = 0;
	char *pem = td_file_read(g->certificate, TD_FILE_SMALL, 0, &n, NULL);
	bool dated = pem && tnl_tls_cert_dates(pem, n, &from, &until) == 0;
	bool named = !g->public_url || tnl_url_parse(g->public_url, &u, &fault) != 0 ||
		     (dated && tnl_tls_cert_names(pem, n, u.host));
	long long days = dated && until > now ? (long long)((until - now) / DAY) : 0;
	bool over = !dated || days == 0 || from > now;
	td_doctor_row(d, "tls",
		      over || !named	 ? TD_DOCTOR_FAIL
		      : days < DAYS_WARN ? TD_DOCTOR_WARN
					 : TD_DOCTOR_OK,
		      TD_EXIT_USAGE,
		      over || days < DAYS_WARN ? "Replace the file and run tunneld reload."
		      : !named		       ? "Have one made with the host of public_url among its subjectAltNames."
					       : NULL,
		      dated ? "%s: %lld days left%s" : "%s: %lld%s", g->certificate, days,
		      named ? "" : ", not for the host of public_url");
	tnl_free(pem);
}

/* --- the store ------------------------------------------------------------------------------------ */

static int64_t number_of(const struct tnl_json *j, const char *key)
{
	int64_t n = 0;
	return tnl_json_int(tnl_json_get(j, key), &n) ? n : 0;
}

static const char *text_of(const struct tnl_json *j, const char *key)
{
	const char *s = tnl_json_get_str(j, key);
	return s ? s : "";
}

/* As the gateway that runs has it. */
static void tell_store(struct td_doctor *d, const struct tnl_json *store)
{
	bool up = tnl_json_bool(tnl_json_get(store, "up"), true), lost = number_of(store, "failed") > 0;
	td_doctor_row(d, "store",
		      !up    ? TD_DOCTOR_FAIL
		      : lost ? TD_DOCTOR_WARN
			     : TD_DOCTOR_OK,
		      TD_EXIT_REFUSED,
		      !up    ? "Bring its server back, or check store: until then no session can start."
		      : lost ? "See the gateway's log for what could not be written."
			     : NULL,
		      "%s%s%s: %s, %lld records queued, %lld not written", text_of(store, "kind"),
		      text_of(store, "server")[0] ? " " : "", text_of(store, "server"), up ? "up" : "away",
		      (long long)number_of(store, "queued"), (long long)number_of(store, "failed"));
}

struct asking {
	struct td_doctor *d;
	struct td_redis *c;
	bool done, good;
	int err;
	char why[400];
};

static void on_pong(void *ctx, int err, const struct tnl_redis_reply *r)
{
	struct asking *x = ctx;
	x->err = err;
	x->good = r && r->type == TNL_REDIS_STATUS;
	if (!x->good)
		snprintf(x->why, sizeof(x->why), "%s", r && r->str ? r->str : tnl_err_text(err));
	td_doctor_done(x->d, &x->done);
}

static void on_up(void *ctx)
{
	struct asking *x = ctx;
	const struct tnl_redis_arg ping[] = {{"PING", 4}};
	int rc = td_redis_send(x->c, ping, 1, on_pong, x);
	if (rc)
		on_pong(x, rc, NULL);
}

/* It goes on trying; the first reason is enough. */
static void on_down(void *ctx, int err, const char *why)
{
	struct asking *x = ctx;
	x->err = err;
	snprintf(x->why, sizeof(x->why), "%s", why && *why ? why : tnl_err_text(err));
	td_doctor_done(x->d, &x->done);
}

static const struct td_redis_cb redis_cb = {.up = on_up, .down = on_down};

static void ask_redis(struct asking *x, const struct tnl_redis_url *url)
{
	struct td_doctor *d = x->d;
	struct td_redis_opts o = {.url = url, .timeout_ns = TD_DOCTOR_PROBE_NS};
	snprintf(x->why, sizeof(x->why), "no answer within 5 s");
	if (url->tls && !(o.tls = td_gateway_store_tls(d->loop, &d->cfg->gw, x->why, sizeof(x->why))))
		return;
	x->c = td_redis_new(d->loop, &o, &redis_cb, x);
	if (x->c)
		td_doctor_wait(d, &x->done, TD_DOCTOR_PROBE_NS, "the store");
	td_redis_free(x->c);
	tnl_tls_ctx_free(o.tls);
}

static void try_redis(struct td_doctor *d, const char *spec)
{
	struct asking x = {.d = d};
	struct tnl_redis_url url;
	const char *fault;
	if (tnl_redis_url_parse(spec, &url, &fault) != 0) /* the configuration has been checked */
		return;
	td_doctor_secret(d, url.password);
	ask_redis(&x, &url);
	bool keys = x.err == TNL_EAUTH;
	td_doctor_row(d, "store", x.good ? TD_DOCTOR_OK : TD_DOCTOR_FAIL, keys ? TD_EXIT_CREDENTIALS : TD_EXIT_REFUSED,
		      x.good ? NULL
		      : keys ? "Check user and password in store; the user needs what docs/scale.md lists."
			     : "Start the server, or check store: a gateway does not start without it.",
		      "redis %s:%u: %s", url.hosts[0].host, url.hosts[0].port, x.good ? "it answers" : x.why);
	tnl_wipe(&url, sizeof(url));
}

/* "" is the working folder. */
static const char *folder_of(const char *path, char *out, size_t cap)
{
	const char *slash = strrchr(path, '/');
	snprintf(out, cap, "%.*s", slash ? TNL_MAX((int)(slash - path), 1) : 1, slash ? path : ".");
	return out;
}

static void try_file(struct td_doctor *d, const char *path)
{
	static const char magic[] = "SQLite format 3";
	char folder[4200], got[sizeof(magic)] = "";
	folder_of(path, folder, sizeof(folder));
	struct stat st;
	bool there = stat(path, &st) == 0, may = access(folder, W_OK | X_OK) == 0;
	const char *why = may ? NULL : strerror(errno);
	if (may && there && access(path, R_OK | W_OK) != 0)
		why = strerror(errno);
	if (there && !S_ISREG(st.st_mode))
		why = "it is no file";
	FILE *f = there && !why ? fopen(path, "re") : NULL;
	if (f && fread(got, 1, sizeof(got), f) && memcmp(got, magic, sizeof(magic)) != 0)
		why = "it is no SQLite database";
	if (f)
		fclose(f);
	td_doctor_row(d, "store", why ? TD_DOCTOR_FAIL : TD_DOCTOR_OK, TD_EXIT_USAGE,
		      why ? "Have the user of the gateway write there, or name another file in store." : NULL,
		      "sqlite %s: %s", path,
		      why     ? why
		      : there ? "there, and may be written"
			      : "made at the first start; its folder may be written");
}

static void try_store(struct td_doctor *d)
{
	const char *spec = d->cfg->gw.store;
	if (!spec)
		td_doctor_row(d, "store", TD_DOCTOR_OK, 0, NULL, "sqlite, in the state directory");
	else if (tnl_redis_url_is(spec))
		try_redis(d, spec);
	else if (strcmp(spec, "sqlite::memory:") == 0)
		td_doctor_row(d, "store", TD_DOCTOR_WARN, 0, "Name a file in store: sessions would outlive a restart.",
			      "sqlite in memory: no session outlives the process");
	else
		try_file(d, strncmp(spec, "sqlite:", 7) == 0 ? spec + 7 : spec);
}

/* --- the other nodes --------------------------------------------------------------------------------- */

static void tell_peer(struct td_doctor *d, const struct tnl_json *p)
{
	bool up = strcmp(text_of(p, "state"), "up") == 0;
	const char *at = text_of(p, "address");
	td_doctor_row(d, "peers", up ? TD_DOCTOR_OK : TD_DOCTOR_FAIL, TD_EXIT_REFUSED,
		      up    ? NULL
		      : *at ? "See the logs of both nodes: peer_listen, peer_ca and the names in their certificates."
			    : "Set peer_listen in the configuration of that node.",
		      "%s%s%s: %s", text_of(p, "node"), *at ? " at " : "", at, up ? "linked" : "no link");
}

static void tell_peers(struct td_doctor *d, const struct tnl_json *gateway)
{
	const struct td_gateway_config *g = &d->cfg->gw;
	int n = 0;
	tnl_json_each(p, tnl_json_get(gateway, "peers")) {
		tell_peer(d, p);
		n++;
	}
	if (n)
		return;
	if (!g->store || !tnl_redis_url_is(g->store))
		td_doctor_row(d, "peers", TD_DOCTOR_SKIPPED, 0, NULL, "this gateway is alone: its store is its own");
	else if (!g->peer_listen)
		td_doctor_row(d, "peers", TD_DOCTOR_WARN, 0,
			      "Set peer_listen: links that come to the wrong node cannot be handed on.",
			      "peer_listen is not set");
	else if (!gateway)
		td_doctor_row(d, "peers", TD_DOCTOR_SKIPPED, 0, NULL, "no gateway runs with this configuration");
	else
		td_doctor_row(d, "peers", TD_DOCTOR_OK, 0, NULL, "no other node is there");
}

/* --- all of it --------------------------------------------------------------------------------------- */

void td_doctor_gateway(struct td_doctor *d)
{
	struct tnl_json *docs = td_doctor_status(d);
	const struct tnl_json *gateway = NULL;
	tnl_json_each(doc, docs) {
		if (tnl_json_get(doc, "gateway"))
			gateway = tnl_json_get(doc, "gateway");
	}
	tell_certificate(d);
	if (gateway)
		tell_store(d, tnl_json_get(gateway, "store"));
	else
		try_store(d);
	if (!d->interrupted)
		tell_peers(d, gateway);
	td_doctor_listen(d, d->cfg->gw.addrs, d->cfg->gw.naddrs);
	tnl_json_free(docs);
}
