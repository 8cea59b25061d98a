/* UpdateInstanceInformation: once in its short form, which says that this process has
 * just started and knows of no session, then in full at once and every five minutes.
 * The service shows by it that the target is there; nothing here depends on its answer. */
#include "tunneld/agent/internal.h"

#include "lib/alloc.h"
#include "tunneld/base/file.h"
#include "tunneld/base/log.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define EVERY (300 * TD_SEC)
#define AFTER_FAILURE (30 * TD_SEC)
#define OS_RELEASE_MAX 65536u

struct ag_info {
	struct td_agent *a;
	struct td_aws_call *call;
	struct td_timer timer;
	bool announced; /* the call without a status was made */
	bool warned;
	char computer[256], address[INET_ADDRSTRLEN], platform[64], version[64];
};

/* First IPv4 address of an interface that is up and not loopback. */
static void find_address(char *out, size_t cap)
{
	struct ifaddrs *all = NULL;

	snprintf(out, cap, "127.0.0.1");
	if (getifaddrs(&all))
		return;
	for (struct ifaddrs *i = all; i; i = i->ifa_next) {
		if (!i->ifa_addr || i->ifa_addr->sa_family != AF_INET || !(i->ifa_flags & IFF_UP) ||
		    (i->ifa_flags & IFF_LOOPBACK))
			continue;
		struct sockaddr_in in;
		memcpy(&in, i->ifa_addr, sizeof(in));
		inet_ntop(AF_INET, &in.sin_addr, out, (socklen_t)cap);
		break;
	}
	freeifaddrs(all);
}

static void take_os_value(const char *line, const char *key, char *out, size_t cap)
{
	size_t n = strlen(key);

	if (strncmp(line, key, n) != 0)
		return;
	const char *v = line + n;
	v += *v == '"';
	snprintf(out, cap, "%.*s", (int)strcspn(v, "\"\n"), v);
}

static void read_platform(struct ag_info *i)
{
	size_t n;
	char *text = td_file_read("/etc/os-release", OS_RELEASE_MAX, 0, &n, NULL), *rest = text, *line;

	snprintf(i->platform, sizeof(i->platform), "Linux");
	snprintf(i->version, sizeof(i->version), "0");
	while ((line = strsep(&rest, "\n")) != NULL) {
		take_os_value(line, "NAME=", i->platform, sizeof(i->platform));
		take_os_value(line, "VERSION_ID=", i->version, sizeof(i->version));
	}
	tnl_free(text);
}

static void on_answer(void *ctx, const struct td_aws_reply *r)
{
	struct ag_info *i = ctx;

	i->call = NULL;
	if (r->err && !i->warned)
		td_warn(AG_MOD, NULL, "UpdateInstanceInformation failed%s error=\"%s\" text=\"%s\"",
			ag_control_is_up(i->a) ? ", sessions work all the same" : "",
			r->type[0] ? r->type : tnl_err_text(r->err), r->text ? r->text : "");
	i->warned = r->err != 0;
	td_timer_in(&i->timer, r->err ? AFTER_FAILURE : i->announced ? EVERY : 0);
	i->announced = true;
}

static void send_info(void *arg)
{
	struct ag_info *i = arg;
	struct tnl_buf b;
	struct tnl_jw w;

	find_address(i->address, sizeof(i->address));
	if (gethostname(i->computer, sizeof(i->computer) - 1))
		i->computer[0] = '\0';
	tnl_buf_init(&b, 4096);
	tnl_jw_init(&w, &b);
	tnl_jw_obj(&w);
	/* The service knows agents by this one name. */
	tnl_jw_kv(&w, "AgentName", "amazon-ssm-agent");
	tnl_jw_kv(&w, "AgentVersion", TNL_AGENT_VERSION);
	tnl_jw_kv(&w, "InstanceId", i->a->instance_id);
	tnl_jw_kv(&w, "PlatformType", "Linux");
	/* The first call of a process has no status, as with stock agents: our gateway takes it as "has just
	 * started" and ends the sessions that the process before took with it. Made once, never again. */
	if (i->announced) {
		tnl_jw_kv(&w, "AgentStatus", "Active");
		tnl_jw_kv(&w, "ComputerName", i->computer);
		tnl_jw_kv(&w, "IPAddress", i->address);
		tnl_jw_kv(&w, "PlatformName", i->platform);
		tnl_jw_kv(&w, "PlatformVersion", i->version);
	}
	tnl_jw_end_obj(&w);
	if (!b.failed)
		i->call = td_aws_json(i->a->aws, "ssm", "AmazonSSM.UpdateInstanceInformation",
				      (const char *)tnl_buf_data(&b), tnl_buf_len(&b), 3, on_answer, i);
	tnl_buf_fini(&b);
	if (!i->call)
		td_timer_in(&i->timer, AFTER_FAILURE);
}

struct ag_info *ag_info_new(struct td_agent *a)
{
	struct ag_info *i = tnl_calloc(1, sizeof(*i));

	if (!i)
		return NULL;
	i->a = a;
	read_platform(i);
	td_timer_init(&i->timer, a->loop, send_info, i);
	td_timer_in(&i->timer, 0);
	return i;
}

void ag_info_restart(struct ag_info *i)
{
	if (i->call)
		td_aws_call_cancel(i->call);
	i->call = NULL;
	td_timer_in(&i->timer, 0);
}

void ag_info_free(struct ag_info *i)
{
	if (!i)
		return;
	if (i->call)
		td_aws_call_cancel(i->call);
	td_timer_stop(&i->timer);
	tnl_free(i);
}
