/* Where the services are: partitions, regions, overrides; and which StreamUrl may have a token. */
#include "lib/alloc.h"
#include "lib/enc.h"
#include "lib/num.h"
#include "tunneld/aws/internal.h"
#include <stdio.h>
#include <string.h>

static const struct service {
	const char *host, *env, *word; /* in names of hosts, of AWS_ENDPOINT_URL_…, of our keys and of [services] */
	size_t configured;	       /* char * in struct td_aws_config; 0: it has no key there */
} services[TD_SERVICE_COUNT] = {
    [TD_SERVICE_SSM] = {"ssm", "SSM", "ssm", offsetof(struct td_aws_config, ssm_endpoint)},
    [TD_SERVICE_SSMMESSAGES] = {"ssmmessages", "SSMMESSAGES", "ssmmessages",
				offsetof(struct td_aws_config, ssmmessages_endpoint)},
    [TD_SERVICE_KMS] = {"kms", "KMS", "kms", offsetof(struct td_aws_config, kms_endpoint)},
    [TD_SERVICE_STS] = {"sts", "STS", "sts", offsetof(struct td_aws_config, sts_endpoint)},
    [TD_SERVICE_ECS] = {"ecs", "ECS", "ecs", offsetof(struct td_aws_config, ecs_endpoint)},
    [TD_SERVICE_SSO] = {"portal.sso", "SSO", "sso", 0},
    [TD_SERVICE_SSO_OIDC] = {"oidc", "SSO_OIDC", "sso_oidc", 0},
};

static const struct partition {
	const char *prefix, *suffix, *dual;
} partitions[] = {
    {"cn-", "amazonaws.com.cn", "api.amazonwebservices.com.cn"},
    {"us-iso-", "c2s.ic.gov", NULL},
    {"us-isob-", "sc2s.sgov.gov", NULL},
    {"us-isof-", "csp.hci.ic.gov", NULL},
    {"eu-isoe-", "cloud.adc-e.uk", NULL},
    {"eusc-", "amazonaws.eu", NULL},
    {"", "amazonaws.com", "api.aws"}, /* aws and aws-us-gov */
};

static const struct partition *partition_of(const char *region)
{
	const struct partition *p = partitions;

	while (strncmp(region, p->prefix, strlen(p->prefix)) != 0)
		p++;
	return p;
}

bool td_host_under(const char *host, const char *domain)
{
	size_t n = strlen(host), k = strlen(domain);

	return n > k + 1 && host[n - k - 1] == '.' && tnl_ieq(host + n - k, domain);
}

static bool amazon_host(const char *host)
{
	for (size_t i = 0; i < TNL_COUNT(partitions); i++)
		if (td_host_under(host, partitions[i].suffix) ||
		    (partitions[i].dual && td_host_under(host, partitions[i].dual)))
			return true;
	return false;
}

static bool amazon_url(const char *url)
{
	struct tnl_url u;
	const char *fault;

	return tnl_url_parse(url, &u, &fault) == 0 && amazon_host(u.host);
}

/* --- endpoints ---------------------------------------------------------------------- */

static int check_endpoint(const char *url, const char *what, char *why, size_t cap)
{
	const char *fault = NULL;
	struct tnl_url u;

	if (tnl_url_parse(url, &u, &fault) == 0 && strncmp(u.scheme, "http", 4) == 0 && !u.query_len)
		return 0;
	snprintf(why, cap, "%s: %.200s is no https URL%s%s", what, url, fault ? ": " : "", fault ? fault : "");
	return TNL_ECONF;
}

/* Another service's, with the same list: what fails for one is passed over by the other. */
static struct td_addresses *equal_list(const struct td_aws *a, const char *list)
{
	for (enum td_service s = 0; s < TD_SERVICE_COUNT; s++)
		if (a->endpoints[s] && strcmp(td_addresses_list(a->endpoints[s]), list) == 0)
			return a->endpoints[s];
	return NULL;
}

void td_aws_endpoints_fini(struct td_aws *a)
{
	for (enum td_service s = 0; s < TD_SERVICE_COUNT; s++) {
		struct td_addresses *x = a->endpoints[s];
		for (enum td_service t = s; t < TD_SERVICE_COUNT; t++)
			if (a->endpoints[t] == x)
				a->endpoints[t] = NULL;
		td_addresses_free(x);
	}
}

/* One URL, or several with commas between them. */
static int set_endpoint(struct td_aws *a, enum td_service s, const char *list, const char *what, char *why, size_t cap)
{
	struct td_addresses *x = equal_list(a, list);
	int rc = x ? 0 : td_addresses_new(&x, a->loop, list);

	if (rc == TNL_ETOOBIG) {
		snprintf(why, cap, "%s: %.200s: more than %d addresses", what, list, TD_ENDPOINTS_MAX);
		return TNL_ECONF;
	}
	a->endpoints[s] = x;
	for (unsigned i = 0; rc == 0 && i < td_addresses_count(x); i++)
		rc = check_endpoint(td_addresses_url(x, i), what, why, cap);
	return rc;
}

static const char *from_config(const struct td_aws *a, enum td_service s)
{
	size_t off = services[s].configured;

	return off ? *(char *const *)(const void *)((const char *)&a->conf + off) : NULL;
}

/* Environment, then the profile's services section, then the profile. */
static const char *from_around(const struct td_aws *a, const struct td_profiles *p, enum td_service s, char *what,
			       size_t cap)
{
	const char *section = td_profiles_get(p, TD_PROFILE, a->profile, "services"), *v;
	char key[64];

	snprintf(what, cap, "AWS_ENDPOINT_URL_%s", services[s].env);
	if ((v = td_env_get(what)) != NULL)
		return v;
	snprintf(what, cap, "AWS_ENDPOINT_URL");
	if ((v = td_env_get(what)) != NULL)
		return v;
	snprintf(key, sizeof(key), "%s.endpoint_url", services[s].word);
	snprintf(what, cap, "services %.60s", section ? section : "");
	if (section && (v = td_profiles_get(p, TD_PROFILE_SERVICES, section, key)) != NULL)
		return v;
	snprintf(what, cap, "endpoint_url of profile %.60s", a->profile);
	return td_profiles_get(p, TD_PROFILE, a->profile, "endpoint_url");
}

static int default_endpoint(struct td_aws *a, enum td_service s, char *why, size_t cap)
{
	bool gov = strncmp(a->region, "us-gov-", 7) == 0;
	/* In GovCloud most plain endpoints are the FIPS ones, and there are no others. */
	bool fips = a->fips && !(gov && s != TD_SERVICE_KMS) && s != TD_SERVICE_SSO && s != TD_SERVICE_SSO_OIDC;
	bool dual = a->dualstack && a->dual_suffix && s != TD_SERVICE_SSO && s != TD_SERVICE_SSO_OIDC;
	char url[300];

	snprintf(url, sizeof(url), "https://%s%s.%s.%s", services[s].host, fips ? "-fips" : "", a->region,
		 dual ? a->dual_suffix : a->suffix);
	return set_endpoint(a, s, url, "region", why, cap);
}

const char *td_aws_url(const struct td_aws *a, enum td_service s)
{
	return td_addresses_url(a->endpoints[s], td_addresses_in_use(a->endpoints[s]));
}

/* A gateway of one's own serves the message and key calls beside the control API: what is set
 * for one holds for the other, unless it is AWS's. */
static const char *companion(const struct td_aws *a, enum td_service s)
{
	enum td_service other[2] = {s == TD_SERVICE_SSM ? TD_SERVICE_SSMMESSAGES : TD_SERVICE_SSM,
				    TD_SERVICE_SSMMESSAGES};

	if (s != TD_SERVICE_SSM && s != TD_SERVICE_SSMMESSAGES && s != TD_SERVICE_KMS)
		return NULL;
	for (int i = 0; i < 2; i++)
		if (other[i] != s && a->configured[other[i]] && a->endpoints[other[i]] &&
		    !amazon_url(td_aws_url(a, other[i])))
			return td_addresses_list(a->endpoints[other[i]]);
	return NULL;
}

static int init_endpoints(struct td_aws *a, const struct td_profiles *p, char *why, size_t cap)
{
	bool ignore = td_env_is_true(td_env_get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS")) ||
		      td_env_is_true(td_profiles_get(p, TD_PROFILE, a->profile, "ignore_configured_endpoint_urls"));
	int rc = 0;

	for (enum td_service s = 0; s < TD_SERVICE_COUNT && rc == 0; s++) {
		const char *url = from_config(a, s);
		char what[96];

		snprintf(what, sizeof(what), "%s_endpoint", services[s].word);
		if (!url && !ignore)
			url = from_around(a, p, s, what, sizeof(what));
		if (url) {
			a->configured[s] = true;
			rc = set_endpoint(a, s, url, what, why, cap);
		}
	}
	for (enum td_service s = 0; s < TD_SERVICE_COUNT && rc == 0; s++) {
		const char *url = a->endpoints[s] ? NULL : companion(a, s);

		if (url)
			rc = set_endpoint(a, s, url, "endpoint", why, cap);
		else if (!a->endpoints[s])
			rc = default_endpoint(a, s, why, cap);
	}
	return rc;
}

/* "https://ssm.eu-west-1.amazonaws.com" tells its region by itself. */
static char *region_in_url(const char *url)
{
	struct tnl_url u;
	const char *fault;
	char *dot, *end, first[512];

	snprintf(first, sizeof(first), "%.*s", url ? (int)strcspn(url, ",") : 0, url ? url : "");
	if (tnl_url_parse(first, &u, &fault) != 0 || strncmp(u.host, "ssm", 3) != 0 || !amazon_host(u.host))
		return NULL;
	dot = strchr(u.host, '.');
	end = dot ? strchr(dot + 1, '.') : NULL;
	return end ? tnl_strndup(dot + 1, (size_t)(end - dot - 1)) : NULL;
}

static bool region_ok(const char *r)
{
	return *r && strlen(r) <= 40 && strspn(r, "abcdefghijklmnopqrstuvwxyz0123456789-") == strlen(r);
}

static int init_region(struct td_aws *a, const struct td_profiles *p, char *why, size_t cap)
{
	const char *v = a->conf.region;

	if (!v && !(v = td_env_get("AWS_REGION")) && !(v = td_env_get("AWS_DEFAULT_REGION")))
		v = td_profiles_get(p, TD_PROFILE, a->profile, "region");
	if (v)
		a->region = tnl_strdup(v);
	else if ((a->region = region_in_url(a->conf.ssm_endpoint)) == NULL &&
		 (a->conf.ssm_endpoint || a->conf.ssmmessages_endpoint))
		a->region = tnl_strdup("us-east-1"); /* a gateway of one's own: any region signs */
	if (a->region && region_ok(a->region))
		return 0;
	if (a->region)
		snprintf(why, cap, "%.60s is no region name (like eu-west-1)", a->region);
	else
		snprintf(why, cap, "no region is set: set region in [aws], AWS_REGION, or region in profile %s",
			 a->profile);
	return TNL_ECONF;
}

static bool choice(int configured, const char *env, const char *from_profile)
{
	return configured >= 0 ? configured > 0 : env ? td_env_is_true(env) : td_env_is_true(from_profile);
}

int td_aws_endpoints_init(struct td_aws *a, const struct td_profiles *p, char *why, size_t cap)
{
	const struct partition *part;
	int rc = init_region(a, p, why, cap);

	if (rc)
		return rc;
	part = partition_of(a->region);
	a->suffix = tnl_strdup(part->suffix);
	a->dual_suffix = part->dual ? tnl_strdup(part->dual) : NULL;
	if (!a->suffix || (part->dual && !a->dual_suffix))
		return TNL_ENOMEM;
	a->fips = choice(a->conf.use_fips, td_env_get("AWS_USE_FIPS_ENDPOINT"),
			 td_profiles_get(p, TD_PROFILE, a->profile, "use_fips_endpoint"));
	a->dualstack = choice(a->conf.use_dualstack, td_env_get("AWS_USE_DUALSTACK_ENDPOINT"),
			      td_profiles_get(p, TD_PROFILE, a->profile, "use_dualstack_endpoint"));
	if (a->dualstack && !a->dual_suffix) {
		snprintf(why, cap, "region %s has no dual-stack endpoints: remove use_dualstack", a->region);
		return TNL_ECONF;
	}
	return init_endpoints(a, p, why, cap);
}

struct td_addresses *td_aws_addresses(const struct td_aws *a, const char *service)
{
	for (int s = 0; s < TD_SERVICE_COUNT; s++)
		if (strcmp(service, services[s].word) == 0)
			return a->endpoints[s];
	return a->endpoints[TD_SERVICE_SSM];
}

const char *td_aws_endpoint(struct td_aws *a, const char *service)
{
	const struct td_addresses *x = td_aws_addresses(a, service);
	return td_addresses_url(x, td_addresses_in_use(x));
}

const char *td_aws_endpoint_at(struct td_aws *a, const char *service, unsigned i)
{
	const struct td_addresses *x = td_aws_addresses(a, service);
	return i < td_addresses_count(x) ? td_addresses_url(x, i) : NULL;
}

bool td_aws_has_endpoint(struct td_aws *a, const char *service, const char *url)
{
	return td_addresses_find(td_aws_addresses(a, service), url) < TD_ENDPOINTS_MAX;
}

uint64_t td_aws_endpoint_moves(struct td_aws *a, const char *service)
{
	return td_addresses_moves(td_aws_addresses(a, service));
}

void td_aws_url_failed(struct td_aws *a, const char *url, const char *why)
{
	struct td_addresses *done = NULL;

	for (enum td_service s = TD_SERVICE_SSM; s <= TD_SERVICE_SSMMESSAGES; s++) {
		unsigned i = td_addresses_find(a->endpoints[s], url);
		if (i < TD_ENDPOINTS_MAX && a->endpoints[s] != done)
			td_addresses_failed(a->endpoints[s], i, why);
		done = a->endpoints[s];
	}
}

void td_aws_put_endpoints(struct td_aws *a, const char *service, struct tnl_jw *w)
{
	const struct td_addresses *x = td_aws_addresses(a, service);

	tnl_jw_key(w, "endpoints");
	tnl_jw_arr(w);
	for (unsigned i = 0; i < td_addresses_count(x); i++) {
		tnl_jw_obj(w);
		tnl_jw_kv(w, "url", td_addresses_url(x, i));
		tnl_jw_key(w, "in_use");
		tnl_jw_bool(w, i == td_addresses_in_use(x));
		tnl_jw_kv(w, "error", td_addresses_trouble(x, i));
		tnl_jw_end_obj(w);
	}
	tnl_jw_end_arr(w);
}

bool td_aws_is_amazon(struct td_aws *a)
{
	return amazon_url(td_aws_url(a, TD_SERVICE_SSM));
}

/* --- StreamUrl ------------------------------------------------------------------------- */

/* The message gateway of the region, in each of its spellings. A mere suffix would not do: under
 * amazonaws.com anybody can have a bucket or a load balancer. */
static bool gateway_host(const struct td_aws *a, const char *host)
{
	const char *const suffixes[] = {a->suffix, a->dual_suffix};
	char name[300];

	for (int i = 0; i < 2; i++) {
		if (!suffixes[i])
			continue;
		for (int fips = 0; fips < 2; fips++) {
			snprintf(name, sizeof(name), "ssmmessages%s.%s.%s", fips ? "-fips" : "", a->region,
				 suffixes[i]);
			if (tnl_ieq(host, name))
				return true;
		}
	}
	snprintf(name, sizeof(name), "ssmmessages.%s.vpce.%s", a->region, a->suffix);
	return td_host_under(host, name);
}

static bool endpoint_host(const struct td_aws *a, enum td_service s, const char *host)
{
	struct tnl_url u;
	const char *fault;

	for (unsigned i = 0; a->configured[s] && i < td_addresses_count(a->endpoints[s]); i++)
		if (tnl_url_parse(td_addresses_url(a->endpoints[s], i), &u, &fault) == 0 && tnl_ieq(u.host, host))
			return true;
	return false;
}

static bool listed_host(const struct td_aws *a, const char *host)
{
	for (int i = 0; i < a->conf.stream_hosts.n; i++) {
		const char *h = a->conf.stream_hosts.v[i];

		if (strncmp(h, "*.", 2) == 0 ? td_host_under(host, h + 2) : tnl_ieq(host, h))
			return true;
	}
	return false;
}

bool td_aws_stream_url_ok(struct td_aws *a, const char *url, const char **fault)
{
	struct tnl_url u;

	*fault = "it is no URL";
	if (tnl_url_parse(url, &u, fault) != 0)
		return false;
	*fault = "it is not a wss URL";
	if (strcmp(u.scheme, "wss") != 0)
		return false;
	*fault = "it names a user";
	if (u.user[0])
		return false;
	*fault = "its host is neither the region's message gateway, nor that of the endpoint, nor in stream_hosts";
	return gateway_host(a, u.host) || endpoint_host(a, TD_SERVICE_SSM, u.host) ||
	       endpoint_host(a, TD_SERVICE_SSMMESSAGES, u.host) || listed_host(a, u.host);
}

/* Behind PrivateLink without private DNS the service names its public host, which does not lead there. */
char *td_aws_stream_route(struct td_aws *a, const char *url)
{
	struct tnl_url u, e;
	const char *fault, *slash;
	struct tnl_buf b;

	if (!a->configured[TD_SERVICE_SSMMESSAGES] || td_aws_url_presigned(url) ||
	    tnl_url_parse(url, &u, &fault) != 0 ||
	    tnl_url_parse(td_aws_url(a, TD_SERVICE_SSMMESSAGES), &e, &fault) != 0 || !gateway_host(a, u.host) ||
	    endpoint_host(a, TD_SERVICE_SSM, u.host) || !(slash = strchr(strstr(url, "://") + 3, '/')))
		return tnl_strdup(url);
	bool tls = strcmp(e.scheme, "https") == 0, six = strchr(e.host, ':') != NULL;
	tnl_buf_init(&b, 8192);
	tnl_buf_printf(&b, "%s://%s%s%s", tls ? "wss" : "ws", six ? "[" : "", e.host, six ? "]" : "");
	if (e.port != (tls ? 443 : 80))
		tnl_buf_printf(&b, ":%u", e.port);
	tnl_buf_puts(&b, slash);
	char *out = b.failed ? NULL : tnl_buf_steal_str(&b);
	tnl_buf_fini(&b);
	return out;
}

bool td_aws_url_presigned(const char *url)
{
	static const char *const keys[] = {"X-Amz-Algorithm",	  "X-Amz-Credential",	 "X-Amz-Date",
					   "X-Amz-Expires",	  "X-Amz-SignedHeaders", "X-Amz-Signature",
					   "X-Amz-Security-Token"};
	const char *q = strchr(url, '?');

	while (q) {
		q++;
		for (size_t i = 0; i < TNL_COUNT(keys); i++) {
			size_t n = strlen(keys[i]);

			if (strncmp(q, keys[i], n) == 0 && q[n] == '=')
				return true;
		}
		q = strchr(q, '&');
	}
	return false;
}
