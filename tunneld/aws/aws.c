/* One [aws] block with all that it was resolved to. Equal blocks share one object. */
#include "tunneld/aws/internal.h"
#include "lib/alloc.h"
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static struct tnl_list all = {&all, &all};

/* --- equal blocks --------------------------------------------------------------------------- */

static void put_field(struct tnl_buf *b, const char *s)
{
	tnl_buf_printf(b, "%d:%s\n", s ? (int)strlen(s) : -1, s ? s : "");
}

/* Path, time and size: a file that was replaced makes another environment at the next reload. */
static void put_stamp(struct tnl_buf *b, const char *path)
{
	struct stat st;

	put_field(b, path);
	if (path && stat(path, &st) == 0)
		tnl_buf_printf(b, "%lld.%ld %lld %llu\n", (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec,
			       (long long)st.st_size, (unsigned long long)st.st_ino);
}

static char *make_key(const struct td_loop *l, const struct td_aws_config *c)
{
	const char *const text[] = {c->region,	      c->profile,      c->ssm_endpoint,	 c->ssmmessages_endpoint,
				    c->kms_endpoint,  c->sts_endpoint, c->access_key_id, c->secret_access_key,
				    c->session_token, c->proxy};
	char *config = td_env_file("AWS_CONFIG_FILE", ".aws/config"), *key;
	struct tnl_buf b;

	tnl_buf_init(&b, 1 << 20);
	tnl_buf_printf(&b, "%p %d %d\n", (const void *)l, c->use_fips, c->use_dualstack);
	for (size_t i = 0; i < sizeof(text) / sizeof(text[0]); i++)
		put_field(&b, text[i]);
	for (int i = 0; i < c->stream_hosts.n; i++)
		put_field(&b, c->stream_hosts.v[i]);
	put_stamp(&b, c->ca_file);
	put_stamp(&b, c->client_certificate);
	put_stamp(&b, c->client_key);
	put_stamp(&b, td_env_get("AWS_CA_BUNDLE"));
	put_stamp(&b, config);
	tnl_free(config);
	key = b.failed ? NULL : tnl_strdup(tnl_buf_str(&b));
	tnl_buf_fini_wiped(&b);
	return key;
}

/* --- making and freeing ------------------------------------------------------------------------ */

static int copy_text(char **out, const char *s)
{
	*out = s && *s ? tnl_strdup(s) : NULL;
	return s && *s && !*out ? TNL_ENOMEM : 0;
}

static int copy_config(struct td_aws_config *d, const struct td_aws_config *c)
{
	d->use_fips = c->use_fips;
	d->use_dualstack = c->use_dualstack;
	if (copy_text(&d->region, c->region) || copy_text(&d->profile, c->profile) ||
	    copy_text(&d->ssm_endpoint, c->ssm_endpoint) ||
	    copy_text(&d->ssmmessages_endpoint, c->ssmmessages_endpoint) ||
	    copy_text(&d->kms_endpoint, c->kms_endpoint) || copy_text(&d->sts_endpoint, c->sts_endpoint) ||
	    copy_text(&d->ca_file, c->ca_file) || copy_text(&d->client_certificate, c->client_certificate) ||
	    copy_text(&d->client_key, c->client_key) || copy_text(&d->access_key_id, c->access_key_id) ||
	    copy_text(&d->secret_access_key, c->secret_access_key) || copy_text(&d->session_token, c->session_token) ||
	    copy_text(&d->proxy, c->proxy))
		return TNL_ENOMEM;
	if (!c->stream_hosts.n)
		return 0;
	d->stream_hosts.v = tnl_calloc((size_t)c->stream_hosts.n, sizeof(char *));
	if (!d->stream_hosts.v)
		return TNL_ENOMEM;
	for (; d->stream_hosts.n < c->stream_hosts.n; d->stream_hosts.n++)
		if (copy_text(&d->stream_hosts.v[d->stream_hosts.n], c->stream_hosts.v[d->stream_hosts.n]))
			return TNL_ENOMEM;
	return 0;
}

static void wiped(char *s)
{
	if (s)
		tnl_free_wiped(s, strlen(s));
}

static void free_config(struct td_aws_config *c)
{
	char *const plain[] = {c->region,	c->profile,	 c->ssm_endpoint, c->ssmmessages_endpoint,
			       c->kms_endpoint, c->sts_endpoint, c->ca_file,	  c->client_certificate,
			       c->client_key,	c->access_key_id};

	for (size_t i = 0; i < sizeof(plain) / sizeof(plain[0]); i++)
		tnl_free(plain[i]);
	wiped(c->secret_access_key);
	wiped(c->session_token);
	wiped(c->proxy);
	for (int i = 0; i < c->stream_hosts.n; i++)
		tnl_free(c->stream_hosts.v[i]);
	tnl_free(c->stream_hosts.v);
}

static int choose_profile(struct td_aws *a, const struct td_profiles *p, char *why, size_t cap)
{
	const char *name = a->conf.profile ? a->conf.profile : td_env_get("AWS_PROFILE");

	if (!name)
		name = td_env_get("AWS_DEFAULT_PROFILE");
	a->profile_named = name != NULL;
	a->profile = tnl_strdup(name ? name : "default");
	if (a->conf.profile && !td_profiles_has(p, TD_PROFILE, name)) {
		snprintf(why, cap,
			 "profile %s is in neither ~/.aws/config nor ~/.aws/credentials: check profile =", name);
		return TNL_ECONF;
	}
	return a->profile ? 0 : TNL_ENOMEM;
}

static int fill(struct td_aws *a, char *why, size_t cap)
{
	struct td_profiles *p = td_env_profiles(why, cap);
	int rc = TNL_ECONF;

	if (!p)
		return rc;
	rc = choose_profile(a, p, why, cap);
	if (rc == 0)
		rc = td_aws_endpoints_init(a, p, why, cap);
	if (rc == 0)
		rc = td_aws_proxy_init(a, why, cap);
	if (rc == 0)
		rc = td_aws_tls_init(a, p, why, cap);
	td_profiles_free(p);
	return rc;
}

struct td_aws *td_aws_new(struct td_loop *l, const struct td_aws_config *c, char *why, size_t cap)
{
	char *key = make_key(l, c);
	struct td_aws *a;

	snprintf(why, cap, "out of memory");
	tnl_list_foreach(it, &all)
	{
		a = tnl_container_of(it, struct td_aws, node);
		if (key && strcmp(a->conf_key, key) == 0) {
			wiped(key);
			return td_aws_ref(a);
		}
	}
	a = key ? tnl_calloc(1, sizeof(*a)) : NULL;
	if (!a) {
		wiped(key);
		return NULL;
	}
	a->refs = 1;
	a->loop = l;
	a->conf_key = key;
	tnl_list_init(&a->node);
	td_credentials_init(a);
	if (copy_config(&a->conf, c) != 0 || fill(a, why, cap) != 0) {
		td_aws_free(a);
		return NULL;
	}
	tnl_list_push_back(&all, &a->node);
	return a;
}

struct td_aws *td_aws_ref(struct td_aws *a)
{
	a->refs++;
	return a;
}

void td_aws_free(struct td_aws *a)
{
	if (!a || --a->refs > 0)
		return;
	tnl_list_remove(&a->node);
	td_credentials_fini(a);
	tnl_tls_ctx_free(a->tls);
	free_config(&a->conf);
	wiped(a->conf_key);
	tnl_free(a->profile);
	tnl_free(a->region);
	tnl_free(a->suffix);
	tnl_free(a->dual_suffix);
	for (int i = 0; i < TD_SERVICE_COUNT; i++)
		tnl_free(a->endpoints[i]);
	tnl_free(a->no_proxy);
	tnl_wipe(&a->proxy, sizeof(a->proxy));
	tnl_wipe(&a->http_proxy, sizeof(a->http_proxy));
	tnl_free(a);
}

const char *td_aws_region(const struct td_aws *a)
{
	return a->region;
}

struct tnl_tls_ctx *td_aws_tls(struct td_aws *a)
{
	return a->tls;
}
