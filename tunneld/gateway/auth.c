/* Who signed a request: SigV4 of users and instances against the keys of the
 * configuration.  An unknown key costs the same work as a wrong signature. */
#include "tunneld/gateway/internal.h"
#include "lib/alloc.h"
#include "lib/crypto.h"
#include "lib/enc.h"
#include "lib/http.h"
#include "lib/sigv4.h"
#include <stdio.h>
#include <string.h>
#include <strings.h>

/* p: whose key it claims to be, NULL: nobody's that is known here. */
static int refuse_request(struct td_gateway *g, struct td_request *r, const char *key, const struct gw_principal *p,
			  struct gw_refusal *why, enum gw_counter c, const char *field)
{
	gw_count(g, c);
	td_warn("gateway", NULL, "request refused peer=%s key=\"%s\" %s=\"%s\" reason=%s field=\"%s\"",
		td_request_peer(r), key ? key : "", p && p->instance ? "instance" : "user", p ? gw_keys_name(p) : "",
		why->type, field);
	const struct gw_denial d = {.peer = td_request_peer(r),
				    .key = key,
				    .who = p,
				    .reason = why->type,
				    .text = field,
				    .proven = c == GW_C_AUTH_DENIED};
	gw_audit_refused(g, &d);
	return -1;
}

static int set_refusal(struct gw_refusal *why, int status, const char *type, const char *text)
{
	why->status = status;
	why->type = type;
	snprintf(why->text, sizeof(why->text), "%s", text);
	return 0;
}

static int refuse_clock(struct td_gateway *g, struct td_request *r, const struct tnl_sigv4_claim *c,
			const struct gw_principal *p, struct gw_refusal *why)
{
	char theirs[TNL_AMZDATE_STR], ours[TNL_AMZDATE_STR];
	uint64_t now = g->l->wall_ms / 1000;
	tnl_amz_date(c->unix_s, theirs);
	tnl_amz_date(now, ours);
	char text[160];
	if (c->unix_s > now)
		snprintf(text, sizeof(text), "Signature not yet current: %s is still later than %s (+ 15 min.)", theirs,
			 ours);
	else
		snprintf(text, sizeof(text), "Signature expired: %s is now earlier than %s (- 15 min.)", theirs, ours);
	set_refusal(why, 400, "InvalidSignatureException", text);
	return refuse_request(g, r, c->access_key_id, p, why, GW_C_AUTH_CLOCK, "clock");
}

static int refuse_certificate(struct td_gateway *g, struct td_request *r, const struct gw_principal *p,
			      struct gw_refusal *why)
{
	set_refusal(why, 403, "AccessDeniedException",
		    "This key needs a client certificate with the name that it is bound to (client_certificate)");
	return refuse_request(g, r, p->key_id, p, why, GW_C_AUTH_DENIED, "client certificate");
}

/* The host of a Host header, without port and brackets; false: there is none that can be right. */
static bool host_of(const struct tnl_http_head *h, char *out, size_t cap)
{
	size_t n = 0;
	const char *host = tnl_http_get(h, "Host", &n), *end;
	if (!host)
		return false;
	if (n && host[0] == '[') {
		host++;
		end = memchr(host, ']', n - 1);
		n = end ? (size_t)(end - host) : 0;
	} else if ((end = memchr(host, ':', n)) != NULL) {
		n = (size_t)(end - host);
	}
	if (!n || n >= cap || memchr(host, 0, n))
		return false;
	memcpy(out, host, n);
	out[n] = 0;
	return true;
}

static bool is_listened_at(const struct td_gateway_config *c, const char *host)
{
	struct td_addr a;
	for (int i = 0; i < c->naddrs; i++)
		if (td_addr_literal(host, td_addr_port(&c->addrs[i]), &a) && a.len == c->addrs[i].len &&
		    memcmp(&a.ss, &c->addrs[i].ss, a.len) == 0)
			return true;
	return false;
}

/* Without signed_hosts: our certificate says who we are to those who check it.  Without one, behind a balancer,
 * public_url does, unless several nodes have one each and a name in common that stands nowhere. */
static bool is_our_own(const struct td_gateway *g, const char *host)
{
	const struct td_gateway_config *c = &g->cfg->gw;
	if (!g->tls && (!c->public_url || g->peers))
		return true;
	return (g->tls && tnl_tls_ctx_named(g->tls, host)) || td_addr_host_is_loopback(host) ||
	       strcasecmp(host, g->node) == 0 || is_listened_at(c, host);
}

bool gw_auth_host_is_ours(const struct td_gateway *g, const struct tnl_http_head *h)
{
	const struct td_strlist *names = &g->cfg->gw.signed_hosts;
	struct tnl_url url;
	const char *fault;
	char host[256];
	for (int i = 0; i < names->n; i++)
		if (strcmp(names->v[i], "*") == 0)
			return true;
	if (!host_of(h, host, sizeof(host)))
		return false;
	for (int i = 0; i < names->n; i++)
		if (strcasecmp(host, names->v[i]) == 0)
			return true;
	if (g->cfg->gw.public_url && tnl_url_parse(g->cfg->gw.public_url, &url, &fault) == 0 &&
	    strcasecmp(host, url.host) == 0)
		return true;
	return names->n == 0 && is_our_own(g, host);
}

int gw_auth_check(struct td_gateway *g, struct td_request *r, const char *service, bool unsigned_ok,
		  const struct gw_principal **who, struct gw_refusal *why)
{
	const struct tnl_http_head *h = td_request_head(r);
	struct tnl_sigv4_claim c;
	const char *fault = "Authorization";
	*who = NULL;
	int rc = tnl_sigv4_claim_parse(h, &c, &fault);
	if (rc == TNL_ENOTFOUND) {
		if (unsigned_ok)
			return 0;
		set_refusal(why, 400, "MissingAuthenticationTokenException", "Missing Authentication Token");
		return refuse_request(g, r, NULL, NULL, why, GW_C_AUTH_MISSING, "Authorization");
	}
	if (rc != 0) {
		set_refusal(why, 400, "IncompleteSignatureException",
			    "The request signature does not conform to AWS standards.");
		return refuse_request(g, r, NULL, NULL, why, GW_C_AUTH_MALFORMED, fault ? fault : "Authorization");
	}
	const struct gw_principal *p = tnl_map_get_str(g->keys, c.access_key_id);
	size_t n;
	const uint8_t *body = td_request_body(r, &n);
	fault = "signature";
	rc = tnl_sigv4_verify(h, body, n, &c, p ? p->secret : NULL, g->cfg->gw.region, service, g->l->wall_ms / 1000,
			      &fault);
	if (rc == 0 && p && !td_request_handed(r) && !gw_auth_host_is_ours(g, h)) { /* else the other node has looked */
		set_refusal(why, 400, "InvalidSignatureException", "The signature is for another host than this one.");
		return refuse_request(g, r, p->key_id, p, why, GW_C_AUTH_SIGNATURE,
				      "Host: neither ours nor in signed_hosts");
	}
	if (rc == 0 && p) {
		const char *name = gw_keys_certificate(p);
		*who = p;
		return !name || td_request_cert_named(r, name) ? 0 : refuse_certificate(g, r, p, why);
	}
	if (rc == TNL_EEXPIRED)
		return refuse_clock(g, r, &c, p, why);
	if (!p) {
		set_refusal(why, 400, "UnrecognizedClientException",
			    "The security token included in the request is invalid.");
		return refuse_request(g, r, c.access_key_id, NULL, why, GW_C_AUTH_UNKNOWN_KEY, "access key");
	}
	set_refusal(
	    why, 400, "InvalidSignatureException",
	    "The request signature we calculated does not match the signature you "
	    "provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details.");
	return refuse_request(g, r, c.access_key_id, p, why, GW_C_AUTH_SIGNATURE, fault ? fault : "signature");
}
