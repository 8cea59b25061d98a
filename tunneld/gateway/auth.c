/* Who signed a request: SigV4 of users and instances against the keys of the
 * configuration.  An unknown key costs the same work as a wrong signature. */
#include "tunneld/gateway/internal.h"
#include "lib/alloc.h"
#include "lib/crypto.h"
#include "lib/enc.h"
#include "lib/sigv4.h"
#include <stdio.h>
#include <string.h>

static void make_mark(const struct td_access_key *k, uint8_t mark[GW_MARK])
{
	uint8_t full[32];
	tnl_hmac_sha256(k->secret, strlen(k->secret), k->id, strlen(k->id), full);
	memcpy(mark, full, GW_MARK);
	tnl_wipe(full, sizeof(full));
}

static int add_key(struct tnl_map *keys, struct tnl_map *marks, const struct td_access_key *k,
		   const struct td_user_config *u, const struct td_instance_config *i)
{
	if (!k->id || !k->secret)
		return 0;
	struct gw_principal *p = tnl_calloc(1, sizeof(*p));
	if (!p)
		return TNL_ENOMEM;
	*p = (struct gw_principal){.user = u, .instance = i, .key_id = k->id, .secret = k->secret};
	make_mark(k, p->mark);
	tnl_free(tnl_map_del_str(keys, k->id));
	int rc = tnl_map_set_str(keys, k->id, p);
	if (rc != 0)
		tnl_free(p);
	return rc == 0 ? tnl_map_set(marks, p->mark, GW_MARK, p) : rc;
}

int gw_auth_load(const struct td_gateway_config *c, struct tnl_map **keys, struct tnl_map **marks)
{
	struct tnl_map *k = tnl_map_new(), *m = tnl_map_new();
	int rc = k && m ? 0 : TNL_ENOMEM;
	for (int i = 0; i < c->nusers * TD_KEYS_MAX && rc == 0; i++) {
		const struct td_user_config *u = &c->users[i / TD_KEYS_MAX];
		rc = add_key(k, m, &u->keys[i % TD_KEYS_MAX], u, NULL);
	}
	for (int i = 0; i < c->ninstances * TD_KEYS_MAX && rc == 0; i++) {
		const struct td_instance_config *n = &c->instances[i / TD_KEYS_MAX];
		rc = add_key(k, m, &n->keys[i % TD_KEYS_MAX], NULL, n);
	}
	if (rc != 0) {
		gw_auth_free(k, m);
		return rc;
	}
	*keys = k;
	*marks = m;
	return 0;
}

void gw_auth_free(struct tnl_map *keys, struct tnl_map *marks)
{
	size_t it = 0;
	const void *key;
	size_t klen;
	tnl_map_free(marks);
	if (!keys)
		return;
	for (void *p; (p = tnl_map_next(keys, &it, &key, &klen)) != NULL;)
		tnl_free(p);
	tnl_map_free(keys);
}

const struct gw_principal *gw_auth_by_mark(const struct td_gateway *g, const uint8_t mark[GW_MARK])
{
	return tnl_map_get(g->marks, mark, GW_MARK);
}

void gw_auth_marks(const struct td_gateway *g, const struct td_access_key keys[TD_KEYS_MAX], struct gw_marks *out)
{
	out->n = 0;
	for (int i = 0; i < TD_KEYS_MAX; i++) {
		const struct gw_principal *p = keys[i].id ? tnl_map_get_str(g->keys, keys[i].id) : NULL;
		if (p)
			memcpy(out->v[out->n++], p->mark, GW_MARK);
	}
}

const char *gw_auth_name(const struct gw_principal *p)
{
	return p->user ? p->user->name : p->instance->id;
}

const char *gw_auth_certificate(const struct gw_principal *p)
{
	return p->user ? p->user->certificate_name : p->instance->certificate_name;
}

static int refuse_request(struct td_gateway *g, struct td_request *r, struct gw_refusal *why, enum gw_counter c,
			  const char *field)
{
	gw_count(g, c);
	td_warn("gateway", NULL, "request refused peer=%s reason=%s field=\"%s\"", td_request_peer(r), why->type,
		field);
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
			struct gw_refusal *why)
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
	return refuse_request(g, r, why, GW_C_AUTH_CLOCK, "clock");
}

static int refuse_certificate(struct td_gateway *g, struct td_request *r, struct gw_refusal *why)
{
	set_refusal(why, 403, "AccessDeniedException",
		    "This key needs a client certificate with the name that it is bound to (client_certificate)");
	return refuse_request(g, r, why, GW_C_AUTH_DENIED, "client certificate");
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
		return refuse_request(g, r, why, GW_C_AUTH_MISSING, "Authorization");
	}
	if (rc != 0) {
		set_refusal(why, 400, "IncompleteSignatureException",
			    "The request signature does not conform to AWS standards.");
		return refuse_request(g, r, why, GW_C_AUTH_MALFORMED, fault ? fault : "Authorization");
	}
	const struct gw_principal *p = tnl_map_get_str(g->keys, c.access_key_id);
	size_t n;
	const uint8_t *body = td_request_body(r, &n);
	fault = "signature";
	rc = tnl_sigv4_verify(h, body, n, &c, p ? p->secret : NULL, g->cfg->gw.region, service, g->l->wall_ms / 1000,
			      &fault);
	if (rc == 0 && p) {
		const char *name = gw_auth_certificate(p);
		*who = p;
		return !name || td_request_cert_named(r, name) ? 0 : refuse_certificate(g, r, why);
	}
	if (rc == TNL_EEXPIRED)
		return refuse_clock(g, r, &c, why);
	if (!p) {
		set_refusal(why, 400, "UnrecognizedClientException",
			    "The security token included in the request is invalid.");
		return refuse_request(g, r, why, GW_C_AUTH_UNKNOWN_KEY, "access key");
	}
	set_refusal(
	    why, 400, "InvalidSignatureException",
	    "The request signature we calculated does not match the signature you "
	    "provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details.");
	return refuse_request(g, r, why, GW_C_AUTH_SIGNATURE, fault ? fault : "signature");
}

const struct td_user_config *gw_auth_user(const struct td_gateway *g, const char *name)
{
	for (int i = 0; i < g->cfg->gw.nusers; i++)
		if (strcmp(g->cfg->gw.users[i].name, name) == 0)
			return &g->cfg->gw.users[i];
	return NULL;
}
