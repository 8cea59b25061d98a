/* What this machine has for it: addresses to listen on, descriptors, memory; and what runs with the configuration
 * already.
 */
#include "tunneld/command/daemons.h"
#include "tunneld/command/doctor.h"

#include "lib/alloc.h"
#include "tunneld/net/listen.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { FEW_DESCRIPTORS = 1024 };

/* --- what runs ----------------------------------------------------------------------------------- */

static void take_status(void *ctx, char *reply)
{
	struct td_doctor *d = ctx;
	struct tnl_json *j = tnl_json_parse(reply, strlen(reply));
	if (j)
		tnl_buf_printf(&d->status, "%s%s", tnl_buf_len(&d->status) ? "," : "", reply);
	tnl_json_free(j);
}

void td_doctor_running(struct td_doctor *d)
{
	struct td_daemons_query q = {.file = d->path};
	if (d->path)
		(void)td_daemons_ask(&q, "status", take_status, d);
}

struct tnl_json *td_doctor_status(const struct td_doctor *d)
{
	struct tnl_buf b;
	tnl_buf_init(&b, 64u << 20);
	tnl_buf_printf(&b, "[%s]", tnl_buf_len(&d->status) ? tnl_buf_str((struct tnl_buf *)(uintptr_t)&d->status) : "");
	struct tnl_json *j = tnl_json_parse(tnl_buf_data(&b), tnl_buf_len(&b));
	tnl_buf_fini(&b);
	return j;
}

/* --- addresses -------------------------------------------------------------------------------------- */

/* Does one of the processes that run with the configuration listen there?  Its id, or 0. */
static long long holder_of(const struct tnl_json *docs, const char *address)
{
	int64_t pid = 0;
	tnl_json_each(doc, docs) {
		const struct tnl_json *gw = tnl_json_get(doc, "gateway");
		tnl_json_each(a, tnl_json_get(gw, "listen")) {
			if (tnl_json_str(a) && strcmp(tnl_json_str(a), address) == 0)
				(void)tnl_json_int(tnl_json_get(doc, "pid"), &pid);
		}
		tnl_json_each(t, tnl_json_get(tnl_json_get(doc, "forwarder"), "tunnels")) {
			tnl_json_each(a, tnl_json_get(t, "listen")) {
				if (tnl_json_str(a) && strcmp(tnl_json_str(a), address) == 0)
					(void)tnl_json_int(tnl_json_get(doc, "pid"), &pid);
			}
		}
	}
	return pid;
}

static void no_connection(void *ctx, int fd, const struct td_addr *peer)
{
	close(fd);
}

static void listen_on(struct td_doctor *d, const struct tnl_json *docs, const struct td_addr *a)
{
	char text[TD_ADDR_STR], why[256] = "";
	td_addr_str(a, text);
	long long pid = holder_of(docs, text);
	if (a->sa.sa_family == TD_AF_GIVEN) {
		td_doctor_row(d, "listen", TD_DOCTOR_SKIPPED, 0, NULL, "%s: systemd holds it", text);
		return;
	}
	if (pid) {
		td_doctor_row(d, "listen", TD_DOCTOR_OK, 0, NULL, "%s: tunneld listens there, process %lld", text, pid);
		return;
	}
	struct td_listener *l = td_listen(d->loop, a, no_connection, NULL, why, sizeof(why));
	if (l)
		td_doctor_row(d, "listen", TD_DOCTOR_OK, 0, NULL, "%s: free", text);
	else
		td_doctor_row(d, "listen", TD_DOCTOR_FAIL, TD_EXIT_USAGE,
			      "Change listen, or end the program that has it: ss -ltnp shows which.", "%s", why);
	td_listener_free(l);
}

void td_doctor_listen(struct td_doctor *d, const struct td_addr *addrs, int n)
{
	struct tnl_json *docs = td_doctor_status(d);
	for (int i = 0; i < n; i++)
		listen_on(d, docs, &addrs[i]);
	tnl_json_free(docs);
}

/* --- descriptors and memory ----------------------------------------------------------------------------- */

/* MiB that are free for use; 0: not known. */
static unsigned long long free_memory(void)
{
	char line[200];
	unsigned long long kib = 0;
	FILE *f = fopen("/proc/meminfo", "re");
	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "MemAvailable: %llu kB", &kib) == 1)
			break;
	if (f)
		fclose(f);
	return kib >> 10;
}

void td_doctor_limits(struct td_doctor *d)
{
	struct rlimit r = {0};
	(void)getrlimit(RLIMIT_NOFILE, &r);
	bool few = r.rlim_max < FEW_DESCRIPTORS;
	td_doctor_row(d, "descriptors", few ? TD_DOCTOR_WARN : TD_DOCTOR_OK, 0,
		      few ? "Raise the limit: LimitNOFILE= of the unit, or ulimit -n." : NULL,
		      "%llu may be open at a time", (unsigned long long)r.rlim_max);
	unsigned long long have = d->cfg ? free_memory() : 0, want = d->cfg ? d->cfg->process_memory >> 20 : 0;
	if (!have) {
		td_doctor_row(d, "memory", TD_DOCTOR_SKIPPED, 0, NULL, "not known");
		return;
	}
	td_doctor_row(d, "memory", have < want ? TD_DOCTOR_WARN : TD_DOCTOR_OK, 0,
		      have < want ? "Lower memory_limit, or give this machine more memory." : NULL,
		      "memory_limit is %llu MiB, %llu MiB are available", want, have);
}

/* --- agent --------------------------------------------------------------------------------------- */

void td_doctor_agent_state(struct td_doctor *d)
{
	struct tnl_json *docs = td_doctor_status(d);
	const struct tnl_json *agent = NULL;
	tnl_json_each(doc, docs) {
		if (tnl_json_get(doc, "agent"))
			agent = tnl_json_get(doc, "agent");
	}
	const char *why = tnl_json_get_str(agent, "last_error");
	bool there = tnl_json_bool(tnl_json_get(agent, "connected"), false);
	if (!agent)
		td_doctor_row(d, "channel", TD_DOCTOR_SKIPPED, 0, "Start it: tunneld agent -c FILE.",
			      "no agent runs with this configuration");
	else
		td_doctor_row(d, "channel", there ? TD_DOCTOR_OK : TD_DOCTOR_FAIL, TD_EXIT_REFUSED,
			      there ? NULL
				    : "The reason stands in its log: what the gateway does not take it says there.",
			      there ? "connected to its gateway%s%s" : "not connected to its gateway%s%s",
			      !there && why ? ": " : "", !there && why ? why : "");
	tnl_json_free(docs);
}
