/* FRR's floor: floor PORT BRIDGE MAC IP puts the two entries that a hook puts for a guest into the kernel (src/kernel/entries.rs), and does
 * nothing else: it reads nothing, asks nothing, remembers nothing. */
#include <arpa/inet.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#define PROTOCOL 69

struct request {
    struct nlmsghdr header;
    struct ndmsg entry;
    char attributes[64];
};

static void put(struct request *request, int kind, const void *value, size_t length)
{
    struct rtattr *attribute = (void *)((char *)request + NLMSG_ALIGN(request->header.nlmsg_len));
    attribute->rta_type = kind;
    attribute->rta_len = RTA_LENGTH(length);
    memcpy(RTA_DATA(attribute), value, length);
    request->header.nlmsg_len = NLMSG_ALIGN(request->header.nlmsg_len) + RTA_ALIGN(attribute->rta_len);
}

/* Asks for an acknowledgement, as the hook does: the entry is there when it comes. */
static int replace(int netlink, struct request *request)
{
    struct {
        struct nlmsghdr header;
        struct nlmsgerr error;
        char echo[512];
    } answer;
    request->header.nlmsg_type = RTM_NEWNEIGH;
    request->header.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
    if (send(netlink, request, request->header.nlmsg_len, 0) < 0 || recv(netlink, &answer, sizeof answer, 0) < 0)
        return -1;
    return answer.header.nlmsg_type == NLMSG_ERROR ? answer.error.error : -1;
}

int main(int count, char **words)
{
    unsigned char mac[6], ip[4], protocol = PROTOCOL;
    struct request fdb = {.header.nlmsg_len = NLMSG_LENGTH(sizeof fdb.entry)};
    struct request neighbour = fdb;
    int netlink = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);

    if (count != 5 || netlink < 0 || inet_pton(AF_INET, words[4], ip) != 1 ||
        sscanf(words[3], "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", mac, mac + 1, mac + 2, mac + 3, mac + 4, mac + 5) != 6)
        return 2;
    fdb.entry = (struct ndmsg){.ndm_family = AF_BRIDGE, .ndm_ifindex = if_nametoindex(words[1]), .ndm_state = NUD_NOARP, .ndm_flags = NTF_MASTER};
    put(&fdb, NDA_LLADDR, mac, sizeof mac);
    neighbour.entry = (struct ndmsg){.ndm_family = AF_INET, .ndm_ifindex = if_nametoindex(words[2]), .ndm_state = NUD_PERMANENT};
    put(&neighbour, NDA_DST, ip, sizeof ip);
    put(&neighbour, NDA_LLADDR, mac, sizeof mac);
    put(&neighbour, NDA_PROTOCOL, &protocol, sizeof protocol);
    return replace(netlink, &fdb) || replace(netlink, &neighbour);
}
