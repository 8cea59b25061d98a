/* The way to the endpoints: what their names lead to, whether they (or the proxy before them) take connections, their
 * certificates, and how their clock and ours differ. */
#include "tunneld/command/doctor.h"

#include "lib/http.h"
#include "lib/num.h"
#include "lib/sigv4.h"
#include "tunneld/net/resolve.h"

#include <string.h>
#include <time.h>

#define CLOCK_WARN 60
#define CLOCK_FAIL 300 /* what signatures forgive, at AWS and at our gateway */
#define DAYS_WARN 14
#define DAY 86400u

enum step { UNTRIED, GOOD, BAD };

struct endpoint {
	struct td_doctor *d;
	struct td_aws *aws;
	char url[TD_ENDPOINT_TEXT], host[256];
	uint16_t port;
	bool tls;
	const struct td_proxy *proxy; /* NULL: direct */
	bool answered;
	const char *service;
	bool spare; /* another one of its service can be had */
	uint64_t began;
	struct {
		enum step how;
		char text[400];
	} name, tcp, cert, date;
	bool refused_cert, certificate_ends;
	int64_t ahead; /* s */
};

/* --- the questions ---------------------------------------------------------------------------- */

static unsigned ms_since(const struct endpoint *e)
{
	return (unsigned)((e->d->loop->now - e->began) / TD_MS);
}

static void begin(struct endpoint *e)
{
	td_loop_update(e->d->loop);
	e->began = e->d->loop->now;
	e->answered = false;
}

static void on_name(void *ctx, int err, const struct td_addr *addrs, int n, const char *why)
{
	struct endpoint *e = ctx;
	char one[TD_ADDR_STR];
	e->name.how = err || n < 1 ? BAD : GOOD;
	if (err || n < 1)
		snprintf(e->name.text, sizeof(e->name.text), "%s", why && *why ? why : "the name has no address");
	for (int i = 0; !err && i < n && i < 4; i++) {
		struct td_addr a = addrs[i];
		size_t k = strlen(e->name.text);
		td_addr_str(&a, one);
		*strrchr(one, ':') = '\0';
		snprintf(e->name.text + k, sizeof(e->name.text) - k, "%s%s", i ? ", " : "", one);
	}
	td_doctor_done(e->d, &e->answered);
}

static void ask_name(struct endpoint *e)
{
	begin(e);
	struct td_resolve *r = td_resolve_start(e->d->loop, e->proxy ? e->proxy->host : e->host, e->port, on_name, e);
	if (r && !td_doctor_wait(e->d, &e->answered, TD_DOCTOR_PROBE_NS, "name resolution")) {
		td_resolve_cancel(r);
		e->name.how = BAD;
		snprintf(e->name.text, sizeof(e->name.text), "no answer of the resolver within 5 s");
	}
}

struct dialing {
	struct endpoint *e;
	struct td_conn *c;
	bool ready;
	int err;
	char why[400];
};

static void on_ready(void *ctx)
{
	struct dialing *x = ctx;
	x->ready = true;
	td_doctor_done(x->e->d, &x->e->answered);
}

static void on_closed(void *ctx, int err, const char *why)
{
	struct dialing *x = ctx;
	x->err = err;
	snprintf(x->why, sizeof(x->why), "%s", why && *why ? why : tnl_err_text(err));
	td_doctor_done(x->e->d, &x->e->answered);
}

static void on_nothing(void *ctx) {}

static const struct td_conn_cb conn_cb = {.ready = on_ready,
					  .readable = on_nothing,
					  .writable = on_nothing,
					  .closed = on_closed};

/* The connection, or NULL and x->why. */
static struct td_conn *dial(struct dialing *x, bool tls)
{
	struct endpoint *e = x->e;
	struct td_conn_opts o = {.host = e->host,
				 .port = e->port,
				 .tls = td_aws_tls(e->aws),
				 .plain = !tls,
				 .proxy = e->proxy,
				 .timeout_ns = TD_DOCTOR_PROBE_NS};
	begin(e);
	x->c = td_conn_dial(e->d->loop, &o, &conn_cb, x);
	snprintf(x->why, sizeof(x->why), "no answer within 5 s");
	if (x->c)
		td_doctor_wait(e->d, &e->answered, TD_DOCTOR_PROBE_NS + 100 * TD_MS, tls ? "TLS" : "a connection");
	if (x->c && !x->ready) {
		td_conn_free(x->c);
		x->c = NULL;
	}
	return x->c;
}

static void ask_tcp(struct endpoint *e)
{
	struct dialing x = {.e = e};
	struct td_conn *c = dial(&x, false);
	e->tcp.how = c ? GOOD : BAD;
	if (c && e->proxy)
		snprintf(e->tcp.text, sizeof(e->tcp.text), "through the proxy %s:%u in %u ms", e->proxy->host,
			 e->proxy->port, ms_since(e));
	else if (c)
		snprintf(e->tcp.text, sizeof(e->tcp.text), "connected in %u ms", ms_since(e));
	else
		snprintf(e->tcp.text, sizeof(e->tcp.text), "%s%s%s", e->proxy ? "through the proxy " : "",
			 e->proxy ? e->proxy->host : "", e->proxy ? "" : "");
	if (!c) {
		size_t k = strlen(e->tcp.text);
		snprintf(e->tcp.text + k, sizeof(e->tcp.text) - k, "%s%s", k ? ": " : "", x.why);
	}
	td_conn_free(c);
}

static void read_certificate(struct endpoint *e, struct td_conn *c)
{
	struct tnl_tls *t = td_conn_tls(c);
	struct tnl_tls_peer p;
	if (tnl_tls_peer(t, &p) != 0)
		return;
	uint64_t now = (uint64_t)time(NULL);
	long long days = p.ends > now ? (long long)((p.ends - now) / DAY) : 0;
	e->certificate_ends = days < DAYS_WARN;
	snprintf(e->cert.text, sizeof(e->cert.text), "%s, certificate of %.100s by %.100s, %lld days left",
		 tnl_tls_version(t), p.subject, p.issuer, days);
}

static void ask_tls(struct endpoint *e)
{
	struct dialing x = {.e = e};
	struct td_conn *c = dial(&x, true);
	e->cert.how = c ? GOOD : BAD;
	e->refused_cert = x.err == TNL_ECERT;
	if (c)
		read_certificate(e, c);
	else
		snprintf(e->cert.text, sizeof(e->cert.text), "%s", x.why);
	td_conn_free(c);
}

static void on_date(void *ctx, const struct td_http_client_response *r)
{
	struct endpoint *e = ctx;
	size_t n = 0;
	const char *date = r->err ? NULL : tnl_http_get(r->head, "date", &n);
	uint64_t theirs;
	if (date && tnl_http_date_parse(date, n, &theirs) == 0) {
		e->date.how = GOOD;
		e->ahead = (int64_t)time(NULL) - (int64_t)theirs;
	}
	td_doctor_done(e->d, &e->answered);
}

static void ask_date(struct endpoint *e)
{
	char url[TD_ENDPOINT_TEXT + 1];
	struct td_http_client_opts o = {.tls = td_aws_tls(e->aws), .proxy = e->proxy, .timeout_ns = TD_DOCTOR_PROBE_NS};
	begin(e);
	snprintf(url, sizeof(url), "%s/", e->url);
	struct td_http_client *h = td_http_client_request(e->d->loop, "HEAD", url, NULL, 0, NULL, 0, &o, on_date, e);
	if (h && !td_doctor_wait(e->d, &e->answered, TD_DOCTOR_PROBE_NS + 100 * TD_MS, "the server's date"))
		td_http_client_cancel(h);
}

static void ask_all(struct endpoint *e)
{
	ask_name(e);
	if (e->name.how == GOOD)
		ask_tcp(e);
	if (e->tcp.how == GOOD && e->tls)
		ask_tls(e);
	if (e->tcp.how == GOOD && (!e->tls || e->cert.how == GOOD))
		ask_date(e);
}

/* One of several that is not needed now, or the only one. */
static enum td_doctor_result failure(const struct endpoint *e)
{
	return e->spare ? TD_DOCTOR_WARN : TD_DOCTOR_FAIL;
}

/* --- the rows ---------------------------------------------------------------------------------- */

static void tell_clock(struct td_doctor *d, const struct endpoint *v, int n)
{
	const struct endpoint *e = NULL;
	for (int i = 0; i < n && !e; i++)
		e = v[i].date.how == GOOD ? &v[i] : NULL;
	if (!e) {
		td_doctor_row(d, "clock", TD_DOCTOR_SKIPPED, 0, NULL, "no server has told its date");
		return;
	}
	int64_t off = e->ahead < 0 ? -e->ahead : e->ahead;
	td_doctor_row(d, "clock",
		      off > CLOCK_FAIL	 ? TD_DOCTOR_FAIL
		      : off > CLOCK_WARN ? TD_DOCTOR_WARN
					 : TD_DOCTOR_OK,
		      TD_EXIT_CREDENTIALS,
		      off > CLOCK_WARN ? "Set this machine's clock: timedatectl set-ntp true" : NULL,
		      "%lld s %s that of %s", (long long)off, e->ahead < 0 ? "behind" : "ahead of", e->host);
}

static void tell_name(struct td_doctor *d, const struct endpoint *e)
{
	td_doctor_row(d, "name", e->name.how == GOOD ? TD_DOCTOR_OK : failure(e), TD_EXIT_REFUSED,
		      e->name.how == GOOD ? NULL
		      : e->proxy
			  ? "Check proxy, and what name servers this machine asks (/etc/resolv.conf)."
			  : "Check region and endpoints, and what name servers this machine asks (/etc/resolv.conf).",
		      "%s%s: %s", e->proxy ? "the proxy " : "", e->proxy ? e->proxy->host : e->host, e->name.text);
}

static void tell_tcp(struct td_doctor *d, const struct endpoint *e)
{
	if (e->tcp.how == UNTRIED)
		td_doctor_row(d, "connection", TD_DOCTOR_SKIPPED, 0, NULL, "%s:%u: its name is not known", e->host,
			      e->port);
	else
		td_doctor_row(d, "connection", e->tcp.how == GOOD ? TD_DOCTOR_OK : failure(e), TD_EXIT_REFUSED,
			      e->tcp.how == GOOD ? NULL
			      : e->proxy	 ? "Check proxy: it must permit CONNECT to this host and port."
						 : "Allow outbound TCP to it, set proxy, or start the gateway.",
			      "%s:%u: %s", e->host, e->port, e->tcp.text);
}

static void tell_tls(struct td_doctor *d, const struct endpoint *e)
{
	const char *advice =
	    e->refused_cert
		? "Set ca_file to the authority of this endpoint; behind a proxy that looks into TLS, to the proxy's."
		: "Something on the way does not speak TLS: a proxy, a filter or a wrong port.";
	if (!e->tls && e->tcp.how == GOOD)
		td_doctor_row(d, "tls", TD_DOCTOR_WARN, 0, "Use https: what goes over this link can be read.",
			      "%s: the endpoint is http", e->host);
	else if (e->cert.how == UNTRIED)
		td_doctor_row(d, "tls", TD_DOCTOR_SKIPPED, 0, NULL, "%s: there is no connection", e->host);
	else if (e->cert.how == BAD)
		td_doctor_row(d, "tls", failure(e), TD_EXIT_REFUSED, advice, "%s: %s", e->host, e->cert.text);
	else
		td_doctor_row(d, "tls", e->certificate_ends ? TD_DOCTOR_WARN : TD_DOCTOR_OK, 0,
			      e->certificate_ends ? "Have the certificate renewed before it ends." : NULL, "%s: %s",
			      e->host, e->cert.text);
}

/* --- all of them --------------------------------------------------------------------------------- */

static bool take_endpoint(struct endpoint *e, struct td_doctor *d, struct td_aws *aws, const char *service,
			  const char *url)
{
	struct tnl_url u;
	const char *fault;
	memset(e, 0, sizeof(*e));
	e->d = d;
	e->aws = aws;
	e->service = service;
	snprintf(e->url, sizeof(e->url), "%s", url);
	if (tnl_url_parse(e->url, &u, &fault) != 0)
		return false;
	snprintf(e->host, sizeof(e->host), "%s", u.host);
	e->port = u.port;
	e->tls = strcmp(u.scheme, "https") == 0;
	e->proxy = td_aws_proxy(aws, e->host);
	return true;
}

static bool is_known(const struct endpoint *v, int k, const struct endpoint *e)
{
	for (int j = 0; j < k; j++)
		if (strcmp(v[j].host, e->host) == 0 && v[j].port == e->port)
			return true;
	return false;
}

static int take_all(struct endpoint *v, int max, struct td_doctor *d, struct td_aws *aws, const char *const *services,
		    int n)
{
	const char *url;
	int k = 0;
	for (int i = 0; i < n; i++)
		for (unsigned at = 0; k < max && (url = td_aws_endpoint_at(aws, services[i], at)) != NULL; at++)
			k += take_endpoint(&v[k], d, aws, services[i], url) && !is_known(v, k, &v[k]);
	return k;
}

static bool is_good(const struct endpoint *e)
{
	return e->tcp.how == GOOD && (!e->tls || e->cert.how == GOOD);
}

/* Of each service one will do. */
static bool find_spares(struct endpoint *v, int k)
{
	bool all = true;
	for (int i = 0; i < k; i++) {
		bool one = false;
		for (int j = 0; j < k; j++)
			one = one || ((td_aws_has_endpoint(v[j].aws, v[i].service, v[j].url) && is_good(&v[j])));
		v[i].spare = one;
		all = all && one;
	}
	return all;
}

bool td_doctor_net(struct td_doctor *d, struct td_aws *aws, const char *const *services, int n)
{
	struct endpoint v[2 * TD_ENDPOINTS_MAX + 2];
	int k = take_all(v, (int)TNL_COUNT(v), d, aws, services, n);
	for (int i = 0; i < k; i++)
		ask_all(&v[i]);
	bool good = find_spares(v, k);
	tell_clock(d, v, k);
	for (int i = 0; i < k; i++)
		tell_name(d, &v[i]);
	for (int i = 0; i < k; i++)
		tell_tcp(d, &v[i]);
	for (int i = 0; i < k; i++)
		tell_tls(d, &v[i]);
	return good;
}
