/* Network namespaces and TUN devices in them. */
#include "tests/tools/linkemu/linkemu.h"
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/route.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { TX_QUEUE = 10000 };

static void device_ioctl(const char *dev, unsigned long what, struct ifreq *r)
{
	int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	snprintf(r->ifr_name, sizeof(r->ifr_name), "%s", dev);
	if (s < 0 || ioctl(s, what, r))
		fail(dev);
	close(s);
}

void set_address(const char *dev, const char *addr)
{
	struct ifreq r = {0};
	struct sockaddr_in sin = {.sin_family = AF_INET};

	inet_pton(AF_INET, addr, &sin.sin_addr);
	memcpy(&r.ifr_addr, &sin, sizeof(sin));
	device_ioctl(dev, SIOCSIFADDR, &r);
	inet_pton(AF_INET, "255.255.255.0", &sin.sin_addr);
	memcpy(&r.ifr_netmask, &sin, sizeof(sin));
	device_ioctl(dev, SIOCSIFNETMASK, &r);
}

static void set_up(const char *dev)
{
	struct ifreq r = {0};

	device_ioctl(dev, SIOCGIFFLAGS, &r);
	r.ifr_flags = (short)(r.ifr_flags | IFF_UP);
	device_ioctl(dev, SIOCSIFFLAGS, &r);
}

/* The network net/24 lies behind dev. */
void add_route(const char *dev, const char *net)
{
	struct rtentry r = {.rt_flags = RTF_UP, .rt_dev = (char *)dev};
	struct sockaddr_in sin = {.sin_family = AF_INET};
	int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	inet_pton(AF_INET, net, &sin.sin_addr);
	memcpy(&r.rt_dst, &sin, sizeof(sin));
	inet_pton(AF_INET, "255.255.255.0", &sin.sin_addr);
	memcpy(&r.rt_genmask, &sin, sizeof(sin));
	if (s < 0 || ioctl(s, SIOCADDRT, &r))
		fail("SIOCADDRT");
	close(s);
}

static int set_sysctl(const char *path, const char *value)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC), n = fd < 0 ? -1 : (int)write(fd, value, strlen(value));

	if (fd >= 0)
		close(fd);
	return n;
}

int new_space(void)
{
	int fd;

	if (unshare(CLONE_NEWNET))
		fail("unshare");
	fd = open("/proc/self/ns/net", O_RDONLY);
	if (fd < 0)
		fail("/proc/self/ns/net");
	set_up("lo");
	set_sysctl("/proc/sys/net/ipv4/tcp_no_metrics_save", "1"); /* no connection learns from the one before */
	return fd;
}

/* A TUN device in the namespace where this thread is. */
int new_device(const char *dev, const char *addr)
{
	struct ifreq r = {.ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR};
	int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC), size = VNET;

	if (fd < 0)
		fail("/dev/net/tun");
	snprintf(r.ifr_name, sizeof(r.ifr_name), "%s", dev);
	if (ioctl(fd, TUNSETIFF, &r))
		fail("TUNSETIFF");
	if (ioctl(fd, TUNSETVNETHDRSZ, &size))
		fail("TUNSETVNETHDRSZ");
	(void)!ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4); /* without it every segment comes by itself */
	memset(&r, 0, sizeof(r));
	r.ifr_qlen = TX_QUEUE;
	device_ioctl(dev, SIOCSIFTXQLEN, &r);
	set_address(dev, addr);
	set_up(dev);
	return fd;
}

void enter(int space)
{
	if (setns(space, CLONE_NEWNET))
		fail("setns");
}

void set_forwarding(void)
{
	if (set_sysctl("/proc/sys/net/ipv4/ip_forward", "1") < 0)
		fail("ip_forward");
}

unsigned long long space_missed(int space)
{
	unsigned long long sum = 0, v;
	char line[512];
	FILE *f;

	enter(space);
	f = fopen("/proc/thread-self/net/dev", "re");
	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, " link%*d: %*u %*u %*u %*u %*u %*u %*u %*u %*u %*u %*u %llu", &v) == 1)
			sum += v;
	if (f)
		fclose(f);
	return sum;
}
