/* Who signed a request: SigV4 of users and instances against the keys of the
 * configuration.  An unknown key costs the same work as a wrong signature. */
#include "tunneld/gateway/internal.h"
#include "lib/alloc.h"
#include "lib/enc.h"
#include "lib/sigv4.h"
#include <fnmatch.h>
#include <stdio.h>
#include <string.h>

static int add_key(struct tnl_map *keys, const char *id, const struct gw_principal *p)
{
	if (!id || !p->secret)
		return 0;
	struct gw_principal *copy = tnl_malloc(sizeof(*copy));
	if (!copy)
		return TNL_ENOMEM;
	*copy = *p;
	tnl_free(tnl_map_del_str(keys, id));
	int rc = tnl_map_set_str(keys, id, copy);
	if (rc != 0)
		tnl_free(copy);
	return rc;
}

int gw_auth_load(struct td_gateway *g, const struct td_gateway_config *c, struct tnl_map **out)
{
	struct tnl_map *keys = tnl_map_new();
	int rc = keys ? 0 : TNL_ENOMEM;
	for (int i = 0; i < c->nusers && rc == 0; i++) {
		const struct gw_principal p = {.user = &c->users[i], .secret = c->users[i].secret_access_key};
		rc = add_key(keys, c->users[i].access_key_id, &p);
	}
	for (int i = 0; i < c->ninstances && rc == 0; i++) {
		const struct gw_principal p = {.instance = &c->instances[i],
					       .secret = c->instances[i].secret_access_key};
		rc = add_key(keys, c->instances[i].access_key_id, &p);
	}
	if (rc != 0) {
		gw_auth_free(keys);
		return rc;
	}
	*out = keys;
	return 0;
}

void gw_auth_free(struct tnl_map *keys)
{
	if (!keys)
		return;
	size_t it = 0;
	const void *key;
	size_t klen;
	for (void *p; (p = tnl_map_next(keys, &it, &key, &klen)) != NULL;)
		tnl_free(p);
	tnl_map_free(keys);
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
		*who = p;
		return 0;
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

bool gw_auth_may_reach(const struct td_user_config *u, const char *target)
{
	for (int i = 0; i < u->targets.n; i++)
		if (fnmatch(u->targets.v[i], target, 0) == 0)
			return true;
	return false;
}

const struct td_user_config *gw_auth_user(struct td_gateway *g, const char *name)
{
	for (int i = 0; i < g->cfg->gw.nusers; i++)
		if (strcmp(g->cfg->gw.users[i].name, name) == 0)
			return &g->cfg->gw.users[i];
	return NULL;
}
